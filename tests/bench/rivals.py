"""Who is to release what is dying: the guard, and what others do on stock kernels.

A rival is at work for the length of a block, as a process of its own, and tells afterwards what it did.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from logindguard.model import ReclaimRecord
from tests.bench.meter import Call
from tests.demo.guard import Guard
from tests.demo.host import Host

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """Where a rival is to work: below `parent`, with `place` for its own files."""

    host: Host
    parent: Path
    place: Path


@dataclass(slots=True)
class Work:
    """`pid` is 0 where nobody is at work. What was timed is told by the end of the block."""

    pid: int = 0
    cpu_usec: int | None = None  # exact, where the rival tells it
    calls: list[Call] = field(default_factory=list)
    shields_usec: list[int] = field(default_factory=list)
    passes: list[tuple[int, int]] = field(default_factory=list)  # of the sweep: CPU usec, files read
    most_waiting: int = 0  # teardowns at once
    records: list[ReclaimRecord] = field(default_factory=list)
    pauses: int = 0  # by pressure
    sentences: list[str] = field(default_factory=list)


class Rival(Protocol):
    @property
    def name(self) -> str: ...
    def at_work(self, on: Field) -> AbstractContextManager[Work]: ...


@dataclass(frozen=True, slots=True)
class Nothing:
    name: str = "no guard"

    def at_work(self, on: Field) -> AbstractContextManager[Work]:
        return nullcontext(Work())


@dataclass(frozen=True, slots=True, kw_only=True)
class Writes:
    """The same write again and again, from one process, at normal priority."""

    name: str
    file: str  # relative to the parent of the dying, or absolute
    value: str
    times: int = 1
    pause_sec: float = 0.0
    sync: bool = False

    @contextmanager
    def at_work(self, on: Field) -> Iterator[Work]:
        script = Path(__file__).with_name("calls.py")
        command = [
            *(sys.executable, str(script), str(on.parent / self.file), self.value),
            *("--times", str(self.times), "--pause", str(self.pause_sec)),
            *(["--sync"] if self.sync else []),
        ]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
            _line(process.stdout)
            work = Work(process.pid)
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
            yield work
            process.stdin.close()
            told = json.loads(_line(process.stdout))
            work.cpu_usec = told["cpu_usec"]
            work.calls = [Call(*each) for each in told["calls"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """The real daemon, confined to the parent, with a stopwatch at each of its calls."""

    name: str = "the guard"
    settings: str = ""
    bus_address: str | None = None
    permanent: bool = True  # the parent stands for user.slice, which nobody removes

    @contextmanager
    def at_work(self, on: Field) -> Iterator[Work]:
        root = on.host.cgroup_path(on.parent)
        told = on.place / "tapped.json"
        program = ["-m", "tests.bench.tapped", str(told), *(["--permanent", root] if self.permanent else [])]
        settings = f"roots: [{root}]\n{self.settings}"
        with Guard(
            settings, on.place / "guard", program=program, bus_address=self.bus_address, end_sec=120
        ) as guard:
            guard.mode()
            work = Work(guard.pid)
            yield work
        timed: dict[str, Any] = json.loads(told.read_text())
        work.calls = [Call(*each) for each in timed["calls"]]
        work.shields_usec = timed["shields"]
        work.passes = [(cpu, files) for cpu, files in timed["passes"]]
        work.most_waiting = timed["most_waiting"]
        work.records = guard.records
        work.pauses = sum("The sweep is paused" in message for message in guard.messages)
        work.sentences = list(guard.sentences())


def _line(stream: IO[str] | None) -> str:
    assert stream is not None
    line = stream.readline()
    if not line:
        raise RuntimeError("a rival ended early; see what it said above")
    return line


NO_GUARD = Nothing()
FORCE_EMPTY = Writes(name="one force_empty, unpaced", file="memory.force_empty", value="0")
KATALYST = Writes(
    name="30 MiB into the parent, 10 times",  # as Katalyst's DyingMemcgReclaim
    file="memory.reclaim",
    value=str(30 * MIB),
    times=10,
    pause_sec=5,
)
# These two reach the whole machine: only for one of our own.
DROP_PAGES = Writes(name="drop_caches=1", file="/proc/sys/vm/drop_caches", value="1")
DROP_ALL = Writes(name="sync, drop_caches=3", file="/proc/sys/vm/drop_caches", value="3", sync=True)
AT_ONCE = "reclaim: {shared: yes}\nsweep: {grace: 0}\n"
GUARD = Guarded(settings=AT_ONCE)
GUARD_UNCAPPED = Guarded(
    name="the guard, cap 100 %", settings="reclaim: {shared: yes}\nsweep: {grace: 0, cpu_percent: 100}\n"
)
