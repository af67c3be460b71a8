"""What a verb works with: the command line, the way out, the service or the host itself."""

from __future__ import annotations

import argparse
import io
import os
import pwd
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, TextIO

from ..record.history import History
from .client import Service, ServiceAbsent
from .exits import Exit, Failure
from .output import Output
from .roots import Roots
from .times import parse_time


def _clock() -> int:
    return time.time_ns() // 1000


def _stream(stream: TextIO | None, mode: Literal["r", "w"]) -> TextIO:
    """Python has None for a descriptor that was closed, and fails where a locale lacks a character."""
    if stream is None:
        return open(os.devnull, mode, encoding="utf-8")
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace" if stream is sys.stderr else "replace")
    return stream


@dataclass(slots=True, kw_only=True)
class World:
    """All that comes from outside: given by the tests, the process's own otherwise.

    `now_usec` holds the clock still; None lets it run. `history` is the journal for who may read it.
    """

    stdin: TextIO = field(default_factory=lambda: _stream(sys.stdin, "r"))
    stdout: TextIO = field(default_factory=lambda: _stream(sys.stdout, "w"))
    stderr: TextIO = field(default_factory=lambda: _stream(sys.stderr, "w"))
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    roots: Roots = field(default_factory=Roots)
    bus_address: str | None = None
    now_usec: int | None = None
    history: History | None = field(default_factory=lambda: History() if os.geteuid() == 0 else None)


@dataclass(slots=True, kw_only=True)
class Context:
    options: argparse.Namespace
    out: Output
    world: World

    @property
    def now_usec(self) -> int:
        return _clock() if self.world.now_usec is None else self.world.now_usec

    def time(self, option: str) -> int:
        """Realtime microseconds of --since or --until; 0 where it was not given."""
        written = getattr(self.options, option)
        if written is None:
            return 0
        try:
            return max(1, parse_time(written, self.now_usec))  # 0 would be no bound
        except (ValueError, OverflowError, OSError) as error:
            sentence = f"--{option}= expects a time such as '2026-01-01 10:00', 'yesterday' or '-2h'"
            raise Failure(f"{sentence}, not '{written}'.", Exit.USAGE) from error

    async def service(self) -> Service:
        """Raises ServiceAbsent where it does not run."""
        interactive = not self.options.no_ask_password and self.world.stdin.isatty()
        return await Service.connect(self.world.bus_address, interactive=interactive)

    async def service_or_say(self, instead: str = "read from the kernel directly") -> Service | None:
        """None where it does not run; what is done instead was said then."""
        try:
            return await self.service()
        except ServiceAbsent as absent:
            self.out.note(f"{absent.reason}: {instead}.")
            return None


@cache
def user_name(uid: int) -> str:
    """The user's name, or the uid as it is where nobody has it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)
