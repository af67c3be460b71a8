"""What is read again after a reclaim: counted always, and held against the sweep where it was its doing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from logindguard.model import Mode, Outcome, ReclaimRecord, Way
from logindguard.refaults import FIRST_BACKOFF_USEC, MAX_BACKOFF_USEC, Backoff, Refaults, refaulted_pages

MIB = 1 << 20
PAGES = MIB // 4096  # in a MiB


def record(way: Way = Way.SWEEP, freed_bytes: int = 64 * MIB) -> ReclaimRecord:
    return ReclaimRecord(
        id="0",
        realtime_usec=0,
        way=way,
        target="/user.slice",
        target_inode=7,
        outcome=Outcome.PARTIAL,
        reason="",
        mode=Mode.PRECISE,
        freed_bytes=freed_bytes,
    )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # what is waited for sets no event
            await asyncio.sleep(0.005)


async def watched(refaults: Refaults, *records: ReclaimRecord) -> None:
    for each in records:
        refaults.reclaimed(each)
    await until(lambda: refaults._task is None)


async def test_what_is_read_again_after_a_reclaim() -> None:
    counts = [100, 107, 200, 200]
    refaults = Refaults(lambda: counts.pop(0), watch_sec=0.01)
    await watched(refaults, record(), record())  # the same watch
    assert (refaults.total_pages, len(counts)) == (7, 2)
    await watched(refaults, record(freed_bytes=0))  # nothing that could be read again
    assert len(counts) == 2
    await watched(refaults, record())
    assert refaults.total_pages == 7


@pytest.mark.parametrize(
    ("ways", "again_pages", "held"),
    [
        ((Way.SWEEP,), 40 * PAGES, True),
        ((Way.SWEEP, Way.SWEEP), 40 * PAGES, False),  # of twice as much
        ((Way.SWEEP,), 20 * PAGES, False),
        ((Way.SWEEP, Way.AFTER), 40 * PAGES, False),  # it may be that one's
        ((Way.BEFORE,), 40 * PAGES, False),
    ],
)
async def test_the_sweep_waits_for_its_own_doing_alone(
    ways: tuple[Way, ...], again_pages: int, held: bool
) -> None:
    counts = [0, 0, 0, again_pages]
    refaults = Refaults(lambda: counts.pop(0), watch_sec=0.01)
    await watched(refaults, record())
    await asyncio.sleep(0.02)  # as long as a watch: what is usual is known
    await watched(refaults, *(record(way) for way in ways))
    assert bool(refaults.backoff.until_usec) is held


async def test_a_first_watch_and_what_is_usual_are_no_sign() -> None:
    counts = [0, 40 * PAGES]
    refaults = Refaults(lambda: counts.pop(0), watch_sec=0.01)
    await watched(refaults, record())
    assert refaults.backoff.until_usec == 0


def test_it_waits_longer_each_time() -> None:
    backoff, now_usec, waits = Backoff(), 0, []
    for _ in range(5):
        assert backoff.judge(64 * MIB, 40 * MIB, now_usec)
        waits.append(backoff.until_usec - now_usec)
        now_usec = backoff.until_usec
    assert waits == [FIRST_BACKOFF_USEC * each for each in (1, 2, 4, 6, 6)]
    assert waits[-1] == MAX_BACKOFF_USEC
    assert backoff.held(now_usec - 1) == (
        "40M of page cache was read again soon after a sweep released 64M, so it waits 1h"
    )
    assert backoff.held(now_usec) == ""
    assert not backoff.judge(64 * MIB, 15 * MIB, now_usec)  # too little to say
    assert not backoff.judge(100 * MIB, 40 * MIB, now_usec)
    assert backoff.judge(20 * MIB, 20 * MIB, now_usec)
    assert backoff.until_usec - now_usec == FIRST_BACKOFF_USEC


def test_the_kernels_own_count(tmp_path: Path) -> None:
    (tmp_path / "vmstat").write_text("nr_free_pages 1\nworkingset_refault_file 42\n")
    assert refaulted_pages(tmp_path) == 42
    (tmp_path / "vmstat").write_text("nr_free_pages 1\n")
    with pytest.raises(ValueError, match="workingset_refault_file"):
        refaulted_pages(tmp_path)


async def test_none_is_begun_once_it_was_stopped() -> None:
    refaults = Refaults(lambda: 1 // 0)
    refaults.stop()
    refaults.reclaimed(record())
    assert refaults._task is None


async def test_a_kernel_that_does_not_count_them() -> None:
    def read() -> int:
        raise ValueError

    refaults = Refaults(read)
    await watched(refaults, record())
    assert refaults.total_pages == 0
