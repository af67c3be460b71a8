"""The native demo's judgement and its words, for each kind of machine."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.demo.sides import DEFAULT, PRECISE, SHARED, WITHOUT, Round, plans, shortcomings, summary, verdict

LEFT = Round(
    plan=WITHOUT,
    made=1000,
    dying_before=0,
    dying_after=1000,
    machine_more=1000,
    waited_sec=3.0,
    held_bytes=1000 << 16,
    neighbour_pages=25600,
    taken_pages=0,
)
FREED = replace(
    LEFT,
    plan=PRECISE,
    dying_after=0,
    machine_more=0,
    held_bytes=0,
    told_pages=0,
    freed_bytes=1000 << 16,
    release_usec=420_000.0,
    cpu_usec=170_000,
)
ALONE = replace(LEFT, plan=DEFAULT, told_pages=0, freed_bytes=0, cpu_usec=90_000)
PAID = replace(FREED, plan=SHARED, dying_after=120, neighbour_pages=768, taken_pages=700, told_pages=768)


def test_sides_follow_the_kernel() -> None:
    assert plans(2, swap_on=True) == [WITHOUT, PRECISE]
    assert plans(1, swap_on=False) == [DEFAULT, SHARED]
    assert plans(1, swap_on=True) == [DEFAULT]


@pytest.mark.parametrize("rounds", [[LEFT, FREED], [ALONE, PAID], [ALONE]])
def test_a_good_run_has_no_shortcoming(rounds: list[Round]) -> None:
    assert shortcomings(rounds) == []


@pytest.mark.parametrize(
    ("rounds", "sentence"),
    [
        ([replace(LEFT, dying_after=3), FREED], "Without the guard, only 3 of 1000 memcgs stayed"),
        ([LEFT, replace(FREED, dying_after=51)], "With the guard, 51 dying memcgs were left after 3 s."),
        ([LEFT, replace(FREED, freed_bytes=0)], "With the guard, it told of no release."),
        ([LEFT, replace(FREED, taken_pages=2, told_pages=2)], "the live neighbour lost 2 pages."),
        ([ALONE, replace(PAID, dying_after=501)], "501 dying memcgs were left"),
        ([replace(ALONE, freed_bytes=1 << 20)], "it released 1.0M, and should not have."),
    ],
)
def test_each_shortcoming_is_a_sentence(rounds: list[Round], sentence: str) -> None:
    (failure,) = shortcomings(rounds)
    assert sentence in failure
    assert failure.endswith(".")


def test_the_guard_is_not_blamed_for_what_others_reclaim() -> None:
    others = replace(LEFT, taken_pages=40)
    assert shortcomings([others, replace(FREED, taken_pages=40)]) == []
    (failure,) = shortcomings([others, replace(FREED, taken_pages=40, told_pages=1)])
    assert "lost 1 pages" in failure


def test_tables_fit_a_terminal() -> None:
    for rounds, version in (([LEFT, FREED], 2), ([ALONE, PAID], 1), ([ALONE], 1)):
        lines = summary(rounds, version).splitlines()
        assert len({len(line) for line in lines}) == 1
        assert len(lines[0]) <= 80
    assert re.search(r"dying memcgs after +1000 +0\n", summary([LEFT, FREED], 2))
    assert "whole machine" not in summary([LEFT, FREED], 2)
    assert re.search(r"pages taken from the live neighbour +0 +700\n", summary([ALONE, PAID], 1))


def test_the_verdict_hides_no_loss() -> None:
    assert "no page taken from the live neighbour" in verdict([LEFT, FREED], 2)
    assert "cost the neighbour 700 of its 768 pages" in verdict([ALONE, PAID], 1)
    assert "swap in use" in verdict([ALONE], 1)
    assert "40 pages" in verdict([replace(ALONE, taken_pages=40), PAID], 1)
