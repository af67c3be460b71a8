"""How much is tried, and from which seed; both told, so that a run can be had again."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from tests.conftest import Tell
from tests.faults.result import Keep, keep_result

FULL = os.environ.get("FAULTS") == "full"

Scale = Callable[[int, int], int]


@pytest.fixture
def scale() -> Scale:
    """The first number as a rule, the second by `make faults`."""
    return lambda cut, full: full if FULL else cut


@pytest.fixture
def seed(tell: Tell) -> int:
    """LOGINDGUARD_SEED, or another one each time."""
    given = os.environ.get("LOGINDGUARD_SEED")
    chosen = int(given) if given else random.SystemRandom().randrange(1 << 32)
    tell(f"LOGINDGUARD_SEED={chosen}")
    print(f"again with: LOGINDGUARD_SEED={chosen}")
    return chosen


@pytest.fixture
def chance(seed: int) -> random.Random:
    return random.Random(seed)


@pytest.fixture
def keep() -> Keep:
    """Takes figures for docs/faults.json; of a full run only."""
    return keep_result if FULL else lambda name, figures: None
