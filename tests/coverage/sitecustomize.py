"""Measures every Python process that has this directory in PYTHONPATH, and those that they start."""

from __future__ import annotations

import atexit
import subprocess
from pathlib import Path
from typing import Any

import coverage

HERE = Path(__file__).parent
TOP = HERE.parents[1]

measured = coverage.Coverage(
    config_file=str(TOP / "pyproject.toml"), data_file=str(TOP / "build/coverage/data"), data_suffix=True
)
measured.start()


@atexit.register
def _end() -> None:
    measured.stop()
    measured.save()


_start: Any = subprocess.Popen.__init__


def _start_measured(self: Any, *args: Any, env: Any = None, **more: Any) -> None:
    """Tests give what they start an environment of its own."""
    _start(self, *args, env=None if env is None else {**env, "PYTHONPATH": str(HERE)}, **more)


subprocess.Popen.__init__ = _start_measured  # type: ignore[method-assign]
