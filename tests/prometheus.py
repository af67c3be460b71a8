"""Prints every family of metrics once, for promtool: see `make test-metrics`."""

from __future__ import annotations

import sys

from logindguard.metrics import exposition
from tests.unit.test_metrics import FIGURES

if __name__ == "__main__":
    sys.stdout.write(exposition(FIGURES))
