"""Errors and strange answers from any control file: a typed outcome, and never a wrong write."""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import random
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from logindguard.guard import Guard
from logindguard.kernel.cgroupfs import BadReading, Cgroup, CgroupGone, KernelError
from logindguard.kernel.pressure import Signs
from logindguard.model import Outcome, ReclaimRecord
from logindguard.reclaimer import Reclaimer
from logindguard.record.repeats import OncePerHour
from logindguard.sweep import Sweep
from tests.bus.fakes import until
from tests.faults.conftest import Scale
from tests.faults.faulty import DIRECTORY, Faults, failing
from tests.faults.ground import PARENT, Ground, ground_in, noted
from tests.unit.test_guard import CONFIG, teardown

ERRNOS = ("EACCES", "EIO", "EINTR", "ENOMEM", "EBUSY", "EPERM", "EMFILE", "ENODEV", "ERANGE", "EINVAL")
READ = (
    *("cgroup.stat", "memory.stat", "memory.current", "memory.min", "memory.max", "memory.high"),
    *("cgroup.events", "cgroup.controllers", "cgroup.subtree_control", "memory.swap.max"),
)
WRITTEN = ("memory.min", "memory.reclaim", "memory.swap.max")
WHEN: dict[str, Callable[[int], bool]] = {
    "always": lambda count: True,
    "first": lambda count: count == 1,
    "later": lambda count: count > 3,
    "now and then": lambda count: count % 3 == 0,
}


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground:
    ground = ground_in(tmp_path)
    ground.fill()
    monkeypatch.setattr(Cgroup, "write", noted(ground))
    return ground


def check(ground: Ground, faults: Faults) -> list[BaseException]:
    with failing(faults):
        errors = ground.run()
    assert faults.count or faults.struck, "nothing was asked of that file"
    assert all(str(error) for error in errors)
    assert ground.wrong() == []
    assert ground.run() == []  # as good as new
    return errors


def some(chance: random.Random, scale: Scale, *of: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """All combinations, or a few of them as the seed says."""
    everything = list(itertools.product(*of))
    return iter(chance.sample(everything, min(len(everything), scale(6, len(everything)))))


@pytest.mark.parametrize("number", ERRNOS)
def test_files_that_cannot_be_read(ground: Ground, number: str, chance: random.Random, scale: Scale) -> None:
    for file, call, when in some(chance, scale, READ, ("open", "read"), WHEN):
        if number == "ENODEV" and file in WRITTEN:
            continue  # the kernel's word for gone, and believed: with the cgroup goes its value
        check(ground, Faults(file, error=getattr(errno, number), call=call, strikes=WHEN[when]))


@pytest.mark.parametrize("number", [each for each in ERRNOS if each != "ENODEV"])
def test_files_that_cannot_be_written(
    ground: Ground, number: str, monkeypatch: pytest.MonkeyPatch, chance: random.Random, scale: Scale
) -> None:
    write = Cgroup.write
    for file, when in some(chance, scale, WRITTEN, WHEN):
        faults = Faults(file, error=getattr(errno, number), call="write", strikes=WHEN[when])

        def refused(cgroup: Cgroup, file: str, value: str, faults: Faults = faults) -> None:
            with cgroup.errors(file):
                if file == faults.file and faults.hit("write"):
                    faults.fail()
            write(cgroup, file, value)

        monkeypatch.setattr(Cgroup, "write", refused)
        errors = ground.run()
        monkeypatch.setattr(Cgroup, "write", write)
        assert faults.count
        assert all(str(error) for error in errors)
        assert ground.wrong() == [], (file, when)


@pytest.mark.parametrize("number", ERRNOS)
def test_directories_that_cannot_be_opened_or_listed(
    ground: Ground, number: str, chance: random.Random, scale: Scale
) -> None:
    for call, when in some(chance, scale, ("open", "scandir"), WHEN):
        check(ground, Faults(DIRECTORY, error=getattr(errno, number), call=call, strikes=WHEN[when]))


ANSWERS: dict[str, Callable[[bytes], bytes]] = {
    "the same in short reads": lambda data: data,
    "nothing": lambda data: b"",
    "one byte": lambda data: data[:1],
    "half": lambda data: data[: len(data) // 2],
    "no line end": lambda data: data.rstrip(b"\n"),
    "unknown keys": lambda data: b"a_new_key 7\nanother\n\n" + data + b"last 1 2 3\n",
    "other keys": lambda data: b"x 1\ny 2\n",
    "absurd numbers": lambda data: b"".join(
        line.split(b" ")[0] + b" 99999999999999999999999999\n" for line in data.splitlines()
    ),
    "one absurd number": lambda data: b"9" * 5000,
    "below 0": lambda data: data.replace(b" 0", b" -5").replace(b"0\n", b"-1\n"),
    "the largest": lambda data: b"18446744073709551615\n",
    "not text": lambda data: b"\xff\xfe\0\0" * 9,
    "words": lambda data: b"maximum\n",
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_strange_answers(ground: Ground, answer: str) -> None:
    for file in READ:
        check(ground, Faults(file, answer=ANSWERS[answer]))


def test_what_is_read_in_pieces_is_whole(ground: Ground) -> None:
    with failing(Faults("memory.stat", answer=lambda data: data)):
        assert ground.backend.read(PARENT).residue.file_bytes == 8 << 20


def test_kinds_of_errors(ground: Ground) -> None:
    """What the layers above tell apart."""
    with (
        failing(Faults("memory.stat", answer=lambda data: b"anon 1\n")),
        pytest.raises(BadReading, match="no key"),
    ):
        ground.backend.read(PARENT)
    with failing(Faults("memory.stat", error=errno.ENODEV)), pytest.raises(CgroupGone):
        ground.backend.read(PARENT)
    with (
        failing(Faults("memory.stat", error=errno.EIO)),
        pytest.raises(KernelError, match="Input/output error"),
    ):
        ground.backend.read(PARENT)


@pytest.fixture
def executors() -> Iterator[tuple[ThreadPoolExecutor, ThreadPoolExecutor]]:
    with ThreadPoolExecutor(1, "prompt") as prompt, ThreadPoolExecutor(1, "idle") as idle:
        yield prompt, idle


@pytest.fixture
def warned() -> Iterator[list[str]]:
    """What gets through to the journal."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    handler.addFilter(OncePerHour())
    logging.getLogger().addHandler(handler)
    yield lines
    logging.getLogger().removeHandler(handler)


@pytest.mark.parametrize(
    "faults",
    [
        Faults("memory.stat", error=errno.EIO),
        Faults("cgroup.stat", error=errno.ENOMEM, call="read"),
        Faults("memory.min", error=errno.EACCES),
        Faults(DIRECTORY, error=errno.EMFILE),
        Faults("memory.stat", answer=lambda data: b"file 1e9\n"),
    ],
    ids=lambda faults: faults.file,
)
async def test_the_service_goes_on(
    ground: Ground,
    faults: Faults,
    executors: tuple[ThreadPoolExecutor, ThreadPoolExecutor],
    monkeypatch: pytest.MonkeyPatch,
    warned: list[str],
) -> None:
    """While a kernel file fails, teardowns and sweeps end with a typed outcome; afterwards they release."""
    monkeypatch.setattr("logindguard.sweep.read_signs", Signs)
    reclaimer = Reclaimer(ground.backend, CONFIG, prompt=executors[0], idle=executors[1])
    told: list[ReclaimRecord] = []

    async def rescan() -> None:
        return

    guard = Guard(reclaimer, tell=told.append, leave=lambda record, decision: None)
    sweep = Sweep(
        reclaimer,
        tell=told.append,
        tell_paused=lambda reason: None,
        tell_forecast=lambda dying, usec: None,
        free=guard.free,
        rescan=rescan,
    )
    tasks = [asyncio.create_task(guard.run()), asyncio.create_task(sweep.run())]
    with failing(faults):
        for _ in range(3):
            guard.heard(teardown("session-9.scope", PARENT))
            await asyncio.sleep(0.1)
        await until(lambda: faults.count + faults.struck > 3 and guard.free.is_set())
    assert not any(task.done() for task in tasks)
    assert all(record.outcome in (Outcome.FAILED, Outcome.GONE) for record in told)
    assert len(warned) == len(set(warned))
    told.clear()
    ground.fill()
    guard.heard(teardown("session-9.scope", PARENT))
    await until(lambda: any(record.outcome is Outcome.RELEASED for record in told))
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert ground.wrong() == []
