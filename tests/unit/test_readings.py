"""One reading for all who ask: shared, within its share of a CPU, and never without a row that is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from logindguard import readings
from logindguard.kernel.cgroupfs import BadReading, KernelError
from logindguard.model import Reading
from logindguard.readings import Readings
from tests.unit.fake_backend import MIB, FakeBackend


@pytest.fixture
def backend() -> FakeBackend:
    backend = FakeBackend()
    backend.hold("/few", 1, MIB)
    backend.hold("/most", 9, 2 * MIB)
    backend.hold("/some", 4, 3 * MIB)
    return backend


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def reading_of(backend: FakeBackend, change: Callable[[str], None]) -> Callable[[str], Reading]:
    read = backend.read

    def changed(path: str) -> Reading:
        change(path)
        return read(path)

    return changed


async def test_whoever_asks_at_once_shares_one(backend: FakeBackend, executor: ThreadPoolExecutor) -> None:
    ours = Readings(backend, executor)
    assert ours.nudge().taken_usec == 0  # at once, so of nothing yet
    first, second = await asyncio.gather(ours.fresh(), ours.fresh())
    assert first is second is ours.latest
    assert [residue.path for residue in first.residues] == ["/most", "/some", "/few"]
    assert (first.dying, first.file_bytes, first.unread) == (14, 6 * MIB, frozenset())
    assert await ours.fresh() is first  # too new to be read again
    assert backend.calls.count(("total", "/")) == 1


async def test_when_time_is_up_the_smallest_are_told_without_bytes(
    backend: FakeBackend, executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readings, "thread_cpu_usec", iter([0, 0, 2 * readings.BUDGET_USEC] * 2).__next__)
    monkeypatch.setattr(readings, "MAX_ROWS", 2)
    told = await Readings(backend, executor).fresh()
    assert [residue.path for residue in told.residues] == ["/most", "/some"]
    assert told.unread == {backend.state["/some"].inode}
    assert told.dying == 14


@pytest.mark.parametrize("gone", [True, False], ids=["gone", "unreadable"])
async def test_one_that_cannot_be_read(
    backend: FakeBackend, executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    """What is gone is left out; what is there and has no memory.stat stays, without bytes."""
    some = backend.state["/some"]

    def change(path: str) -> None:
        if path == "/some":
            if not gone:
                raise BadReading(path, "memory.stat", "no key")
            backend.state.pop(path, None)

    monkeypatch.setattr(backend, "read", reading_of(backend, change))
    told = await Readings(backend, executor).fresh()
    assert ("/some" in {residue.path for residue in told.residues}) is not gone
    assert told.unread == (frozenset() if gone else {some.inode})


async def test_a_reading_that_fails_is_told_to_who_waits_and_the_old_one_stays(
    backend: FakeBackend, executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> int:
        raise BadReading("/", "cgroup.stat", "no key")

    monkeypatch.setattr(backend, "total_dying", fails)
    ours = Readings(backend, executor)
    with pytest.raises(KernelError):
        await ours.fresh()
    assert ours.latest.taken_usec == 0
    ours.stop()
