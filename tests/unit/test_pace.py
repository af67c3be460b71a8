"""CPU time in bursts: never more than its share in any second, and not much less."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from logindguard.pace import SEC, Pace


def worst_second_usec(sizes: Sequence[int], share_percent: float) -> tuple[int, float]:
    """The most CPU time in any second, and the share of the whole time, of bursts one after the other."""
    pace, now, ended = Pace(), 0, []
    for size in sizes:
        now += size
        ended.append((now, size))
        now += pace.rest_usec(size, share_percent, now)
    # Some second that begins with a burst is the worst one.
    worst = max(
        sum(min(size, begin + SEC - (end - size)) for end, size in ended if begin <= end - size < begin + SEC)
        for begin in (end - size for end, size in ended)
    )
    return worst, sum(sizes) * 100 / now


@pytest.mark.parametrize("size", [100, 300, 1_000, 3_000, 6_100, 9_900, 10_001, 15_000, 20_000])
def test_bursts_of_one_size(size: int) -> None:
    worst, used_percent = worst_second_usec([size] * 200, 2.0)
    assert worst <= 20_000
    assert used_percent > 0.9


def test_bursts_of_all_sizes() -> None:
    source = random.Random(1)
    sizes = [13_000 if turn % 5 == 0 else source.randrange(100, 13_000) for turn in range(1_000)]
    worst, used_percent = worst_second_usec(sizes, 2.0)
    assert worst <= 20_000
    assert used_percent > 0.85  # room is kept for one that is larger than all of them


def test_one_that_is_larger_than_all_before_it() -> None:
    source = random.Random(1)
    for largest in range(8_000, 12_001, 500):
        sizes = [source.randrange(6_000, largest // 5 * 4) for _ in range(20)]
        assert worst_second_usec([*sizes, largest], 2.0)[0] <= 20_000


def test_a_burst_over_the_share_is_made_up_for() -> None:
    pace = Pace()
    assert pace.rest_usec(50_000, 2.0, 10 * SEC) == 2_450_000
    assert worst_second_usec([50_000] * 20, 2.0) == (50_000, 2.0)
    assert worst_second_usec([200_000] * 20, 100.0)[1] > 75


def test_it_forgets_what_was_large_once() -> None:
    pace = Pace()
    pace.rest_usec(19_000, 2.0, 0)
    assert pace.rest_usec(1_500, 2.0, 5 * SEC) == SEC - 19_000
    assert pace.rest_usec(1_500, 2.0, 70 * SEC) == 73_500
    assert pace.rest_usec(0, 2.0, 140 * SEC) == 0
