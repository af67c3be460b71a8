"""Where a verb's result goes: a person's terminal, a pager, a file, or another program as JSON."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, TextIO

from . import pager
from .exits import Exit, Failure
from .table import Column, Row, footer, table
from .terminal import Colour, Terminal

_NOT_PLAIN = re.compile(r"[^ -~\n\t]")


class Json(StrEnum):
    OFF = "off"
    PRETTY = "pretty"
    SHORT = "short"


class Output:
    """Collects lines and shows them at `flush`; what streams calls that after each line."""

    def __init__(
        self,
        stdout: TextIO,
        stderr: TextIO,
        terminal: Terminal,
        *,
        json_mode: Json = Json.OFF,
        legend: bool = True,
        quiet: bool = False,
        full: bool = False,
        pager_environment: Mapping[str, str] | None = None,
    ) -> None:
        self.terminal = terminal
        self.stdout = stdout
        self.json_mode = json_mode
        self.legend = legend
        self.quiet = quiet
        self.full = full
        self._stderr = stderr
        self._pager_environment = pager_environment
        self._lines: list[str] = []

    @property
    def as_json(self) -> bool:
        return self.json_mode is not Json.OFF

    def paint(self, text: str, colour: Colour | None) -> str:
        return self.terminal.paint(text, colour)

    def line(self, text: str = "") -> None:
        self._lines.append(text)

    def result(self, text: str) -> None:
        """What was done, in one sentence; not where --quiet."""
        if not self.quiet:
            self.line(text)

    def note(self, text: str) -> None:
        """About the result, not part of it: to stderr, not where --quiet."""
        if not self.quiet:
            self._say(text)

    def error(self, text: str) -> None:
        self._say(text)

    def _say(self, text: str) -> None:
        try:
            self._stderr.write(f"{text}\n")
            self._stderr.flush()
        except (OSError, ValueError):  # nobody listens
            return

    def json(self, value: Any) -> None:
        """One value: over several lines, or on one for --json=short."""
        self.line(json_text(value, pretty=self.json_mode is Json.PRETTY))

    def table(self, columns: Sequence[Column], rows: Sequence[Row], noun: str, *, empty: str = "") -> None:
        """With its footer; where there are no rows, `empty` alone, or "No slices."."""
        if rows:
            self._lines += table(columns, rows, self.terminal, legend=self.legend, full=self.full)
            if self.legend:
                self.line()
        if self.legend:
            self.line(footer(len(rows), noun) if rows else empty or f"No {noun}s.")

    def flush(self, *, paged: bool = False) -> None:
        if not self._lines:
            return
        text = "\n".join(self._lines) + "\n"
        self._lines.clear()
        environment = self._pager_environment if paged and self.terminal.interactive else None
        if environment is not None and pager.show(text, environment):
            return
        try:
            self.stdout.write(text)
            self.stdout.flush()
        except OSError as error:
            # What stays in the buffer would be complained about at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stdout.fileno())
            if isinstance(error, BrokenPipeError):  # who read it has seen enough
                raise
            raise Failure(f"The output cannot be written: {error.strerror}.", Exit.OUTPUT) from error


def json_text(value: Any, *, pretty: bool = False) -> str:
    """JSON that a terminal shows as it is: what is not printable within a string is escaped."""
    text = json.dumps(
        value,
        ensure_ascii=False,
        indent="\t" if pretty else None,
        separators=None if pretty else (",", ":"),
    )
    return _NOT_PLAIN.sub(
        lambda found: found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1], text
    )
