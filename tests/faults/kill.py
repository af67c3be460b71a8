#!/usr/bin/python3
"""SIGKILLs windows and restores on trees of plain files, restores, and looks at every value.

    python3 -m tests.faults.kill --cycles N [--seed N]

Each cycle is a process of its own that opens windows on a tree of its own, in which others set
values, make cgroups and remove them meanwhile and afterwards, at any line of the program. It is
killed at a line that the seed says, or at some moment from the outside; so may be the restore after
it, which then runs once more, to its end. Prints one JSON line: what was wrong then, and how many kills left
something to be put back.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from logindguard.kernel.cgroupfs import KernelError
from logindguard.kernel.features import Features
from logindguard.kernel.ledger import Ledger, LedgerError
from logindguard.kernel.shield import restore
from logindguard.kernel.v2 import V2Backend
from logindguard.model import Reclaim
from tests.faults.kernfs import kernfs
from tests.faults.world import MIB, PARENT, World

PACKAGE = str(Path(__file__).parents[2] / "logindguard")
# Others may write between a look at a value and the write that follows; the kernel has no way to tell.
UNDIVIDED = ("put_back", "_set")
NEVER = 1 << 62
PLAN = Reclaim(max_bytes=6 * MIB, keep_mapped=False, window_usec=1_000_000, write_usec=1_000, reason="a test")


class Lines:
    """Counts the lines of the program as they run; does at one of them what it was told to."""

    def __init__(self, at: dict[int, Callable[[], None]]) -> None:
        self.count = 0
        self._at = at
        self._late: list[Callable[[], None]] = []

    def trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            self.count += 1
            if action := self._at.get(self.count):
                self._late.append(action)
            while self._late and not (self._late[0] is not die and _undivided(frame)):
                self._late.pop(0)()
        return self.trace


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _undivided(frame: FrameType | None) -> bool:
    """Whatever is called in between: a context manager's body is called by contextlib."""
    while frame is not None:
        if frame.f_code.co_name in UNDIVIDED and frame.f_code.co_filename.startswith(PACKAGE):
            return True
        frame = frame.f_back
    return False


def backend_of(world: World, ledger: Ledger) -> V2Backend:
    features = Features(
        memory_reclaim=True,
        swappiness_word=False,
        partial_walks=True,
        mglru=False,
        recursiveprot="memory_recursiveprot" in world.tree.hierarchy.options,
        reparents_lru=False,
        dying_key="nr_dying_descendants",
    )
    return V2Backend(world.tree.hierarchy, features, ledger)


def windows(world: World, ledger: Ledger) -> None:
    """What the daemon does: a window below a live parent, then one on a cgroup that ends, without swap."""
    backend = backend_of(world, ledger)
    with kernfs():
        for ending in (False, True):
            try:
                if ending:
                    residue = backend.read_ending(PARENT).residue
                    plan = Reclaim(
                        max_bytes=MIB,
                        keep_mapped=False,
                        window_usec=1_000_000,
                        write_usec=1_000,
                        reason="a test",
                        forbid_swap=True,
                    )
                    backend.reclaim_ending(residue, plan, lambda: False)
                else:
                    backend.reclaim(backend.read(PARENT).residue, PLAN, lambda: False)
            except (KernelError, LedgerError):  # as the daemon, which tells of it and goes on
                continue


def restored(world: World, ledger: Ledger) -> None:
    with kernfs():
        restore(world.tree.hierarchy, ledger)


def in_process(work: Callable[[], None], at: dict[int, Callable[[], None]], *, outside_sec: float = 0) -> int:
    """Runs it in a process of its own; its exit status as waitpid(2) tells it."""
    pid = os.fork()
    if pid == 0:
        try:
            sys.settrace(Lines(at).trace if at else None)
            work()
            sys.settrace(None)
            os._exit(0)
        except BaseException as error:  # noqa: BLE001  # whatever it is, the process above has to hear of it
            sys.settrace(None)
            sys.stderr.write(f"{error!r}\n")
            os._exit(1)
    if outside_sec:
        time.sleep(outside_sec)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def line_counts() -> tuple[int, int]:
    """Lines of the program that the windows take, and of a restore, when nothing comes in between."""
    with tempfile.TemporaryDirectory(prefix="lgkill-") as directory:
        world = World(Path(directory), random.Random(1), recursiveprot=True)
        ledger = ledger_in(Path(directory))
        counts = []
        for work in (windows, restored):
            lines = Lines({})
            sys.settrace(lines.trace)
            work(world, ledger)
            sys.settrace(None)
            counts.append(lines.count)
    return counts[0], max(counts[1], 200)  # there was nothing to restore


def ledger_in(directory: Path) -> Ledger:
    ledger = Ledger(directory / "run")
    ledger.prepare()
    return ledger


def cycle(directory: Path, chance: random.Random, lines: int, restore_lines: int) -> tuple[bool, list[str]]:
    """Whether the kill left something to be put back, and what was wrong in the end."""
    world = World(directory, chance, recursiveprot=chance.random() < 0.7)
    ledger = ledger_in(directory)
    if chance.random() < 0.2:
        outside_sec = chance.random() * 0.02
        status = in_process(lambda: windows(world, ledger), {}, outside_sec=outside_sec)
    else:
        at: dict[int, Callable[[], None]] = {
            chance.randrange(1, lines): world.happen for _ in range(chance.randrange(5))
        }
        last = max(at, default=0) if chance.random() < 0.5 else 0  # it dies soon after, or at any moment
        at[last + chance.randrange(1, 60) if last else chance.randrange(1, int(lines * 1.2))] = die
        status = in_process(lambda: windows(world, ledger), at)
    wrong = [] if status in (0, -signal.SIGKILL) else [f"the windows ended with {status}"]
    left = bool(ledger.entries())
    world.era = "b"
    for _ in range(chance.randrange(3)):
        world.happen()
    for _ in range(chance.randrange(3)):
        status = in_process(lambda: restored(world, ledger), {chance.randrange(1, restore_lines): die})
        if status not in (0, -signal.SIGKILL):
            wrong.append(f"a restore ended with {status}")
    restored(world, ledger)
    if ledger.entries():
        wrong.append("the ledger is not empty")
    return left, wrong + world.wrong()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cycles", type=int, default=100)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", type=int, help="this cycle alone")
    given = parser.parse_args()
    lines, restore_lines = line_counts()
    left = 0
    wrong: list[str] = []
    for number in itertools.islice(itertools.count(), given.cycles) if given.only is None else [given.only]:
        directory = Path(tempfile.mkdtemp(prefix="lgkill-"))
        try:
            proved, found = cycle(directory, random.Random(f"{given.seed}/{number}"), lines, restore_lines)
        finally:
            shutil.rmtree(directory)
        left += proved
        wrong += [f"cycle {number}: {each}" for each in found]
    print(json.dumps({"seed": given.seed, "cycles": given.cycles, "left_raised": left, "wrong": wrong}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
