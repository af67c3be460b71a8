"""A course of values in character cells: bars of eighths, with what they reach up to at the left."""

from __future__ import annotations

from collections.abc import Callable

from ..report import Course

BLOCKS = " ▁▂▃▄▅▆▇█"
NOTHING = " "


def bars(values: Course, lines: int, highest: float) -> list[str]:
    """One column a value, from the top line down; a value above 0 is never invisible."""
    eighths = [_eighths(value, lines, highest) for value in values]
    return [
        "".join(BLOCKS[min(8, max(0, count - 8 * line))] for count in eighths)
        for line in reversed(range(lines))
    ]


def _eighths(value: float | None, lines: int, highest: float) -> int:
    if not value or highest <= 0:
        return 0
    return max(1, round(value / highest * lines * 8))


def chart(
    values: Course,
    lines: int,
    show: Callable[[int], str],
    begin: str,
    end: str,
    paint: Callable[[str], str] = lambda bars: bars,
) -> list[str]:
    """Bars with an axis at the left and one below, whose ends are named. `show` writes a value."""
    highest = max((value for value in values if value is not None), default=0)
    labels = [show(int(highest)), *[""] * (lines - 2), show(0)] if lines > 1 else [show(int(highest))]
    width = max(len(label) for label in labels)
    drawn = [
        f"{label:>{width}} {'┤' if label else '│'}{paint(row.rstrip())}"
        for label, row in zip(labels, bars(values, lines, highest), strict=True)
    ]
    gap = len(values) - len(begin) - len(end)
    names = begin + " " * gap + end if gap > 0 else begin
    return [*drawn, f"{'':{width}} └{'─' * len(values)}", f"{'':{width}}  {names}"]
