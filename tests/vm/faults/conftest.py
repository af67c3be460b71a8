"""Seeds as tests/faults has them, and results that full runs keep."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.conftest import Tell
from tests.faults.conftest import FULL, chance, seed
from tests.faults.result import keep_result

__all__ = ["chance", "seed"]

Result = Callable[..., None]


@pytest.fixture
def result(request: pytest.FixtureRequest, seed: int, tell: Tell) -> Result:
    """Takes figures by name: told at the end of the run, and of a full one kept in docs/faults.json."""

    def take(**figures: object) -> None:
        tell(", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in figures.items()))
        if FULL:
            of = {"seed": seed, "load_average": round(os.getloadavg()[0], 1), **figures}
            keep_result(request.node.name, of)

    return take
