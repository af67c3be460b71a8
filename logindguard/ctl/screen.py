"""A whole terminal for a while: alternate screen, single keys, and all put back whatever ends it.

Hard facts (termios(3), signal(7), xterm's control sequences):

- A stop (Ctrl+Z) leaves the terminal as it is: it has to be put back before, and taken again after.
- SIGWINCH says that the size has changed; the size itself is asked for at each drawing.
- A terminal that hangs up reads as end of file, again and again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import termios
from collections.abc import Sequence
from typing import ClassVar, Self, TextIO

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"  # alternate screen, no cursor, no wrapping
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME = "\x1b[H"
_TO_END_OF_LINE = "\x1b[K"
_TO_END_OF_SCREEN = "\x1b[J"


class Screen:
    """A context manager, to be entered on a running loop."""

    HUNG_UP: ClassVar[str] = "hung up"
    RESIZED: ClassVar[str] = "resized"

    def __init__(self, stdin: TextIO, stdout: TextIO) -> None:
        self._stdin = stdin.fileno()
        self._stdout = stdout
        self._keys: asyncio.Queue[str] = asyncio.Queue()
        self._before: list[object] | None = None
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> Self:
        self._take()
        self._loop.add_signal_handler(signal.SIGWINCH, self._keys.put_nowait, self.RESIZED)
        self._loop.add_signal_handler(signal.SIGTSTP, self._stop)
        for number in (signal.SIGTERM, signal.SIGHUP):
            self._loop.add_signal_handler(number, self._keys.put_nowait, self.HUNG_UP)
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGWINCH, signal.SIGTSTP, signal.SIGTERM, signal.SIGHUP):
            self._loop.remove_signal_handler(number)
        self._give_back()

    def _take(self) -> None:
        with contextlib.suppress(termios.error):  # stdin is no terminal: there are no keys then
            self._before = termios.tcgetattr(self._stdin)
            raw = termios.tcgetattr(self._stdin)
            raw[3] &= ~(termios.ICANON | termios.ECHO)  # Ctrl+C and Ctrl+Z stay signals
            termios.tcsetattr(self._stdin, termios.TCSADRAIN, raw)
            self._loop.add_reader(self._stdin, self._read)
        self._write(_ENTER)

    def _give_back(self) -> None:
        self._write(_LEAVE)
        if self._before is not None:
            self._loop.remove_reader(self._stdin)
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._stdin, termios.TCSADRAIN, self._before)  # type: ignore[arg-type]  # as got
            self._before = None

    def _stop(self) -> None:
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)  # the terminal tells the rest of the job by itself
        self._take()
        self._keys.put_nowait(self.RESIZED)

    def _read(self) -> None:
        try:
            read = os.read(self._stdin, 64)
        except OSError:
            read = b""
        if not read:
            self._loop.remove_reader(self._stdin)
            self._keys.put_nowait(self.HUNG_UP)
        elif read.startswith(b"\x1b") and len(read) > 1:
            return  # an arrow or a function key, which have no meaning here
        for character in read.decode("ascii", "ignore"):
            self._keys.put_nowait(character)

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stdout.write(text)
            self._stdout.flush()

    def draw(self, lines: Sequence[str]) -> None:
        """The whole picture in one write, over the old one: clearing first would flicker."""
        # Each line is cleared before it is written: after a full one the cursor stands on its last column.
        rows = "\r\n".join(f"{_TO_END_OF_LINE}{line}" for line in lines)
        self._write(f"{_HOME}{rows}\r\n{_TO_END_OF_SCREEN}" if rows else f"{_HOME}{_TO_END_OF_SCREEN}")

    async def key(self, timeout_sec: float) -> str | None:
        """The next key, RESIZED or HUNG_UP; None when the time is up."""
        try:
            async with asyncio.timeout(timeout_sec):
                return await self._keys.get()
        except TimeoutError:
            return None
