"""Courses of samples, and how they are drawn in character cells."""

from __future__ import annotations

import pytest

from logindguard.ctl.chart import bars, chart
from logindguard.model import Mode, Sample
from logindguard.report import Course, course


def sample(realtime_usec: int, dying: int) -> Sample:
    return Sample(
        realtime_usec=realtime_usec,
        mode=Mode.PRECISE,
        dying=dying,
        residue_bytes=0,
        teardowns_total=0,
        freed_bytes_total=0,
        stolen_pages_total=0,
        cpu_usec_total=0,
    )


@pytest.mark.parametrize(
    ("told", "parts", "found"),
    [
        ([], 3, [None, None, None]),
        ([(0, 5)], 3, [5, None, None]),
        ([(0, 5), (10, 9), (20, 7), (99, 1)], 1, [9]),  # the highest of each part
        ([(0, 5), (50, 3), (99, 1)], 4, [5, 5, 3, 1]),  # until the next one is told
        ([(0, 5), (10, 5), (20, 5), (90, 2)], 10, [5, 5, 5, None, None, None, None, None, None, 2]),  # a gap
        ([(0, 0), (60, 0)], 2, [0, 0]),
        ([(100, 4)], 2, [None, 4]),  # the end belongs to it
    ],
)
def test_course(told: list[tuple[int, int]], parts: int, found: Course) -> None:
    samples = [sample(*each) for each in told]
    assert course(samples, 0, 100, lambda each: each.dying, parts) == found


def test_bars() -> None:
    assert bars([0, 1, 8, 16, None], 2, 16) == ["   █ ", " ▁██ "]
    assert bars([1], 2, 1000) == [" ", "▁"]  # something is never nothing
    assert bars([0, None], 1, 0) == ["  "]


def test_chart() -> None:
    assert chart([0, 5, 10], 3, str, "a", "b") == [
        "10 ┤  █",
        "   │ ▄█",
        " 0 ┤ ██",
        "   └───",
        "    a b",
    ]
    assert chart([0], 2, str, "long begin", "end")[-1] == "   long begin"
