"""What the other end of stdout is: how wide, whether in colour, whether a person's."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TextIO

NARROWEST = 40


class Colour(StrEnum):
    """ANSI sequences as systemd's own tools use them (ansi-color.h)."""

    RED = "\x1b[0;1;31m"
    GREEN = "\x1b[0;1;32m"
    YELLOW = "\x1b[0;1;33m"
    BLUE = "\x1b[0;1;34m"
    GREY = "\x1b[0;90m"
    BOLD = "\x1b[0;1;39m"
    UNDERLINE = "\x1b[0;4m"


_NORMAL = "\x1b[0m"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """`columns` is None where nothing limits the length of a line: a file, or a pipe."""

    columns: int | None = None
    colour: bool = False
    interactive: bool = False

    def paint(self, text: str, colour: Colour | None) -> str:
        if not self.colour or colour is None or not text:
            return text
        return f"{colour}{text}{_NORMAL}"


def look_at(stream: TextIO, environment: Mapping[str, str]) -> Terminal:
    """The terminal behind `stream`; $SYSTEMD_COLORS, then $NO_COLOR, then whether it can (systemd(1))."""
    interactive = stream.isatty()
    capable = interactive and environment.get("TERM") not in (None, "", "dumb")
    colour = capable and "NO_COLOR" not in environment
    match environment.get("SYSTEMD_COLORS", "").lower():
        case "1" | "yes" | "y" | "true" | "t" | "on" | "16" | "256":
            colour = True
        case "0" | "no" | "n" | "false" | "f" | "off":
            colour = False
    return Terminal(
        columns=size_of(stream, environment)[0] if interactive else None,
        colour=colour,
        interactive=interactive,
    )


def size_of(stream: TextIO, environment: Mapping[str, str]) -> tuple[int, int]:
    """Columns and lines; $COLUMNS and $LINES win, as in ncurses(3X)."""
    try:
        found = os.get_terminal_size(stream.fileno())
        columns, lines = found.columns or 80, found.lines or 24
    except (OSError, ValueError):
        columns, lines = 80, 24

    def named(name: str, found: int) -> int:
        given = environment.get(name, "")
        return int(given) if given.isascii() and given.isdecimal() and 0 < int(given) < 10_000 else found

    return max(NARROWEST, named("COLUMNS", columns)), max(5, named("LINES", lines))


def width(text: str) -> int:
    """Columns that printable `text` takes: none for combining characters, two for wide ones."""
    if text.isascii():
        return len(text)
    return sum(_width(character) for character in text)


def _width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def ellipsize(text: str, columns: int, *, keep_end: bool = False) -> str:
    """`text` in at most `columns` columns, what is too much replaced by one "…"."""
    if width(text) <= columns:
        return text
    if columns <= 1:
        return "…"[:columns]
    if not keep_end:
        return _head(text, columns - 1) + "…"
    tail = _head(text[::-1], (columns - 1) * 2 // 3)[::-1]
    return _head(text, columns - 1 - width(tail)) + "…" + tail


def _head(text: str, columns: int) -> str:
    used = 0
    for at, character in enumerate(text):
        used += _width(character)
        if used > columns:
            return text[:at]
    return text
