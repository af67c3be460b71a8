"""Progress of a long program: one rewritten line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import time
from typing import TextIO

COLUMNS = 80
CLEAR_LINE = "\r\033[K"
GREEN, RED, PLAIN = "\033[32m", "\033[31m", "\033[0m"


def wrapped(text: str, *, indent: int = 0) -> str:
    """Each of its lines on as many of a terminal's as it takes; paths stay whole."""
    wrapper = textwrap.TextWrapper(
        COLUMNS, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(wrapper.fill(line) for line in text.splitlines())


class Progress:
    """Tells what goes on now, with the seconds since the start."""

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self._stream = stream
        self._rewrites = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._colours = self._rewrites and not os.environ.get("NO_COLOR")
        self._started = time.monotonic()

    def step(self, text: str) -> None:
        """A line that stays; a long one goes on below itself."""
        self._clear()
        print(wrapped(f"[{self.seconds:3.0f} s] {text}", indent=8), file=self._stream, flush=True)

    def now(self, text: str) -> None:
        """Between two steps: seen on a terminal only, until the next comes."""
        if self._rewrites:
            line = f"[{self.seconds:3.0f} s] … {text}"
            # A line that the terminal breaks could not be rewritten.
            self._stream.write(CLEAR_LINE + line[: shutil.get_terminal_size().columns - 1])
            self._stream.flush()

    def verdict(self, text: str, *, good: bool) -> None:
        self._clear()
        text = wrapped(text)
        if self._colours:
            text = f"{GREEN if good else RED}{text}{PLAIN}"
        print(text, file=self._stream, flush=True)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def _clear(self) -> None:
        if self._rewrites:
            self._stream.write(CLEAR_LINE)
