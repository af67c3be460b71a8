"""Tables as systemd's tools draw them: upper-case underlined header, one blank between columns, a footer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..text import counted
from .terminal import Colour, Terminal, ellipsize, width

NOTHING = "-"
_NARROWEST = 8


@dataclass(frozen=True, slots=True)
class Column:
    title: str
    right: bool = False
    shrink: int = 0  # may be cut to fit the terminal, down to so many columns while others can go; 0: never
    keep_end: bool = False  # cut in the middle: the end of a path tells most
    wide: bool = False  # left out where the terminal is too narrow for all
    nothing: str = NOTHING


class Cell(NamedTuple):
    text: str
    colour: Colour | None = None


Row = Sequence[str | Cell]


def table(
    columns: Sequence[Column],
    rows: Sequence[Row],
    terminal: Terminal,
    *,
    legend: bool = True,
    full: bool = False,
) -> list[str]:
    """Lines without their ends. An empty cell is shown as "-"."""
    cells = [[_cell(cell, column) for cell, column in zip(row, columns, strict=True)] for row in rows]
    widths = [
        max([width(column.title) if legend else 0, *(width(row[at].text) for row in cells)])
        for at, column in enumerate(columns)
    ]
    if terminal.columns is not None and not full:
        kept = _kept(widths, columns, terminal.columns)
        columns = [columns[at] for at in kept]
        cells = [[row[at] for at in kept] for row in cells]
        widths = [widths[at] for at in kept]
        _fit(widths, columns, terminal.columns)
    lines = []
    if legend:
        titles = [Cell(column.title) for column in columns]
        lines.append(terminal.paint(_line(columns, titles, widths, Terminal()), Colour.UNDERLINE))
    lines += [_line(columns, row, widths, terminal) for row in cells]
    return lines


def footer(count: int, noun: str, verb: str = "listed") -> str:
    """ "3 slices listed." """
    return f"{counted(count, noun)} {verb}."


def _cell(cell: str | Cell, column: Column) -> Cell:
    if isinstance(cell, str):
        cell = Cell(cell)
    return cell if cell.text else Cell(column.nothing, Colour.GREY)


def _kept(widths: Sequence[int], columns: Sequence[Column], available: int) -> list[int]:
    """Which columns: the last wide ones go first, while not even the rest cut short fits."""
    kept = list(range(len(columns)))
    for at in reversed(range(len(columns))):
        least = [min(widths[i], columns[i].shrink or widths[i]) for i in kept]
        if sum(least) + len(least) - 1 <= available:
            break
        if columns[at].wide:
            kept.remove(at)
    return kept


def _fit(widths: list[int], columns: Sequence[Column], available: int) -> None:
    """Take from those that are widest over their least until the line fits, or nothing more can be taken."""
    too_much = sum(widths) + len(widths) - 1 - available
    while too_much > 0:
        shrinkable = [at for at, column in enumerate(columns) if column.shrink and widths[at] > _NARROWEST]
        if not shrinkable:
            return
        widths[max(shrinkable, key=lambda at: widths[at] - columns[at].shrink)] -= 1
        too_much -= 1


def _line(columns: Sequence[Column], row: Sequence[Cell], widths: Sequence[int], terminal: Terminal) -> str:
    parts = []
    for column, cell, room in zip(columns, row, widths, strict=True):
        text, colour = cell
        taken = width(text)
        if taken > room:
            text = ellipsize(text, room, keep_end=column.keep_end)
            taken = width(text)
        gap = " " * (room - taken)
        painted = terminal.paint(text, colour)
        parts.append(gap + painted if column.right else painted + gap)
    return " ".join(parts).rstrip()
