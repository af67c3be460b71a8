"""The real daemon, with a stopwatch at each of its reclaim calls, shields and sweeps.

    python3 -m tests.bench.tapped FILE [--permanent CGROUP]... ARGUMENTS

ARGUMENTS are those of logindguardd. At its end FILE has what was timed, as JSON. `--permanent` has it
take a cgroup for one that nobody removes, such as /user.slice, which it sweeps at idle priority.
"""

from __future__ import annotations

import json
import sys
import time
from array import array
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from logindguard import daemon, reclaimer
from logindguard.guard import Guard
from logindguard.kernel import v1, v2
from logindguard.kernel.interrupt import Interrupter
from logindguard.kernel.shield import Shield
from logindguard.kernel.writer import Writer
from logindguard.model import Teardown
from logindguard.sweep import Sweep


class Taps:
    """Microseconds: `calls` passed and used, `shields` passed, `passes` used and files opened meanwhile.

    `most_waiting` are teardowns at one time, from the first word of them to their turn.
    """

    def __init__(self) -> None:
        # Not objects: what the stopwatch keeps must not look as if the daemon grew.
        self._calls = array("q")
        self.shields = array("q")
        self.passes: list[tuple[int, int]] = []
        self.most_waiting = 0
        self._raised: dict[int, int] = {}
        self._opened = 0

    def install(self) -> None:
        for owner, name in ((Interrupter, "write"), (Writer, "_write")):
            _replace(owner, name, self._timed)
        _replace(Shield, "raise_", self._raising)
        _replace(Shield, "lower", self._lowering)
        _replace(Sweep, "_pass", self._passing)
        _replace(Guard, "heard", self._hearing)
        sys.addaudithook(self._audit)

    def told(self) -> dict[str, Any]:
        return {
            "calls": list(zip(self._calls[::2], self._calls[1::2], strict=True)),
            "shields": self.shields.tolist(),
            "passes": self.passes,
            "most_waiting": self.most_waiting,
        }

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            wall, cpu = time.monotonic_ns(), time.thread_time_ns()
            try:
                return call(*arguments, **named)
            finally:
                took = (time.monotonic_ns() - wall) // 1000, (time.thread_time_ns() - cpu) // 1000
                self._calls.extend(took)

        return timed

    def _raising(self, raise_: Callable[[Shield], None]) -> Callable[[Shield], None]:
        def raising(shield: Shield) -> None:
            self._raised.setdefault(id(shield), time.monotonic_ns())
            raise_(shield)

        return raising

    def _lowering(self, lower: Callable[[Shield], None]) -> Callable[[Shield], None]:
        def lowering(shield: Shield) -> None:
            covered = len(shield)
            lower(shield)
            raised = self._raised.pop(id(shield), None)
            if raised is not None and covered:
                self.shields.append((time.monotonic_ns() - raised) // 1000)

        return lowering

    def _passing(self, pass_: Callable[[Sweep], Awaitable[None]]) -> Callable[[Sweep], Awaitable[None]]:
        async def passing(sweep: Sweep) -> None:
            cpu, opened = time.process_time_ns(), self._opened
            await pass_(sweep)
            self.passes.append(((time.process_time_ns() - cpu) // 1000, self._opened - opened))

        return passing

    def _hearing(self, heard: Callable[[Guard, Teardown], None]) -> Callable[[Guard, Teardown], None]:
        def hearing(guard: Guard, teardown: Teardown) -> None:
            heard(guard, teardown)
            self.most_waiting = max(self.most_waiting, guard.waiting_count)

        return hearing

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        # A directory is opened to reach the file in it; what counts is what is read.
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & 0o200000):
            self._opened += 1


def _replace(owner: type, name: str, by: Callable[[Any], Any]) -> None:
    setattr(owner, name, by(getattr(owner, name)))


def main(arguments: list[str]) -> int:
    file = Path(arguments.pop(0))
    while arguments[:1] == ["--permanent"]:
        for module in (reclaimer, v1, v2):
            vars(module)["PERMANENT"] |= {arguments[1]}
        del arguments[:2]
    taps = Taps()
    taps.install()
    try:
        return daemon.main(arguments)
    finally:
        file.write_text(json.dumps(taps.told()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
