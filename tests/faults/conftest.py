"""How much is tried, and from which seed; both told, so that a run can be had again."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from tests.faults.result import Keep, keep_result

FULL = os.environ.get("FAULTS") == "full"

Scale = Callable[[int, int], int]


@pytest.fixture
def scale() -> Scale:
    """The first number as a rule, the second by `make faults`."""
    return lambda cut, full: full if FULL else cut


SEED = int(os.environ.get("LOGINDGUARD_SEED") or random.SystemRandom().randrange(1 << 32))


@pytest.fixture
def seed() -> int:
    """LOGINDGUARD_SEED, or another one each time. What a test prints is shown where it fails."""
    print(f"again with: LOGINDGUARD_SEED={SEED}")
    return SEED


@pytest.fixture
def chance(seed: int, request: pytest.FixtureRequest) -> random.Random:
    """Of this test alone, whichever others are run."""
    return random.Random(f"{seed}/{request.node.name}")


@pytest.fixture
def keep() -> Keep:
    """Takes figures for docs/faults.json; of a full run only."""
    return keep_result if FULL else lambda name, figures: None
