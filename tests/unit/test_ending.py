"""Reclaim before the rmdir, for stop jobs and hooks, over a backend that does as told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pytest

from logindguard.config import Config, TeardownSettings
from logindguard.ending import Busy
from logindguard.guard import Guard
from logindguard.model import Mode, Outcome, Phase, ReclaimRecord, Source, Teardown, Way
from logindguard.reclaimer import Reclaimer, now_usec
from tests.unit.fake_backend import MIB, FakeBackend

ALICE = "/user.slice/user-1000.slice"
SCOPE = f"{ALICE}/session-1.scope"
CONFIG = Config(teardown=TeardownSettings(settle_usec=10_000, settle_max_usec=20_000))


@dataclass
class Rig:
    backend: FakeBackend
    reclaimer: Reclaimer
    guard: Guard
    told: list[ReclaimRecord] = field(default_factory=list)
    left: list[ReclaimRecord] = field(default_factory=list)
    alive: bool = False  # the stop job has ended, and the cgroup has not

    def teardown(self, phase: Phase, source: Source = Source.PAM, inode: int = 0) -> Teardown:
        return Teardown(
            unit="session-1.scope",
            path=SCOPE,
            inode=inode or self.backend.state[SCOPE].inode,
            phase=phase,
            source=source,
            heard_usec=now_usec(),
        )

    async def hook(self, within_usec: int = 5_000_000) -> ReclaimRecord:
        teardown = self.teardown(Phase.ENDING)
        return await self.guard.endings.serve_hook(teardown, now_usec() + within_usec)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    backend = FakeBackend()
    with ThreadPoolExecutor(1, "prompt") as prompt, ThreadPoolExecutor(1, "idle") as idle:
        reclaimer = Reclaimer(backend, CONFIG, prompt=prompt, idle=idle)
        rig: Rig
        guard = Guard(
            reclaimer,
            tell=lambda record: rig.told.append(record),
            leave=lambda record, decision: rig.left.append(record),
            lives_on=lambda teardown: rig.alive,
        )
        rig = Rig(backend, reclaimer, guard)
        running = asyncio.create_task(guard.run())
        yield rig
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # what is waited for sets no event
            await asyncio.sleep(0.002)


async def test_a_hook_is_one_window_and_one_record(rig: Rig) -> None:
    rig.backend.hold(SCOPE, 0, 8 * MIB, mapped_bytes=4096, dirty_bytes=0)
    record = await rig.hook()
    assert (record.way, record.outcome, record.freed_bytes) == (Way.BEFORE, Outcome.RELEASED, 8 * MIB - 4096)
    assert record.teardowns[0].source is Source.PAM
    assert rig.told == [record]
    assert rig.guard.free.is_set()


async def test_what_it_leaves_is_told_with_the_reason(rig: Rig) -> None:
    rig.backend.hold(SCOPE, 0, 8 * MIB, dirty_bytes=MIB)
    record = await rig.hook()
    assert (record.outcome, record.reason) == (Outcome.PARTIAL, "the rest waits for writeback")
    rig.backend.per_window_bytes = 2 * MIB
    rig.backend.hold(SCOPE, 0, 8 * MIB)
    record = await rig.hook()
    assert (record.outcome, record.reason) == (Outcome.PARTIAL, "the kernel did not give up the rest in time")
    rig.backend.hold(SCOPE, 0, 80 * MIB, mapped_bytes=40 * MIB)
    record = await rig.hook()
    assert (record.outcome, record.mapped_kept_bytes) == (Outcome.MAPPED_KEPT, 40 * MIB)


async def test_a_hook_is_not_made_to_wait(rig: Rig) -> None:
    rig.backend.hold(SCOPE, 0, 8 * MIB)
    rig.backend.hold(ALICE, 1, 8 * MIB)
    rig.backend.window_sec = 0.2
    rig.guard.heard(replace(rig.teardown(Phase.ENDED, inode=77), path=f"{ALICE}/session-7.scope"))
    await until(rig.backend.reclaimed)
    with pytest.raises(Busy):
        await rig.hook()
    await until(lambda: rig.told)
    assert (await rig.hook()).outcome is Outcome.RELEASED


async def test_a_hook_that_gave_up_is_told_all_the_same(rig: Rig) -> None:
    """The kernel is at it, whether or not anybody waits: what it did is in the record."""
    rig.backend.hold(SCOPE, 0, 8 * MIB)
    rig.backend.window_sec = 0.2
    waiting = asyncio.create_task(rig.hook())
    await until(rig.backend.reclaimed)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    with pytest.raises(Busy):
        await rig.hook()
    await until(lambda: rig.told)
    assert rig.told[0].freed_bytes == 8 * MIB


async def test_the_removal_afterwards_is_told_only_if_there_is_more_to_say(rig: Rig) -> None:
    rig.backend.hold(SCOPE, 0, 8 * MIB)
    rig.backend.hold(ALICE, 0, 0)
    await rig.hook()
    ended = rig.teardown(Phase.ENDED, Source.CGROUP_WATCH)
    del rig.backend.state[SCOPE]
    rig.guard.heard(ended)
    await until(lambda: rig.left)
    assert [record.way for record in rig.told] == [Way.BEFORE]
    rig.backend.hold(ALICE, 1, MIB)  # something of it was dirty then
    rig.guard.heard(ended)
    await until(lambda: len(rig.left) == 2)
    assert [record.way for record in rig.told] == [Way.BEFORE, Way.AFTER]


async def test_the_removal_of_what_gave_nothing_before_is_told(rig: Rig) -> None:
    rig.backend.hold(SCOPE, 0, 0)
    rig.backend.hold(ALICE, 0, 0)
    assert (await rig.hook()).freed_bytes == 0
    assert rig.told == []
    rig.guard.heard(rig.teardown(Phase.ENDED, Source.CGROUP_WATCH))
    await until(lambda: rig.told)
    assert rig.told[0].way is Way.AFTER


async def test_observing_hooks_write_nothing(rig: Rig) -> None:
    rig.backend.hold(SCOPE, 0, 8 * MIB)
    rig.backend.mode, rig.backend.reason = Mode.OBSERVE, "this kernel heals itself"
    record = await rig.hook()
    assert (record.outcome, record.reason) == (Outcome.SKIPPED, "this kernel heals itself")
    assert rig.backend.calls == []
    assert rig.told == []


async def test_nothing_is_written_once_a_stop_job_is_over(rig: Rig) -> None:
    rig.backend.hold(SCOPE, 0, 800 * MIB)
    rig.guard.heard(rig.teardown(Phase.ENDING, Source.SYSTEMD1))
    await until(lambda: len(rig.backend.reclaimed()) == 2)
    rig.alive = True
    before = len(rig.backend.reclaimed())
    await until(lambda: not rig.guard.endings._tasks)
    assert len(rig.backend.reclaimed()) <= before + 1  # what was in the kernel then
    rig.alive = False  # and another begins
    rig.guard.heard(rig.teardown(Phase.ENDING, Source.SYSTEMD1))
    await until(lambda: len(rig.backend.reclaimed()) > before + 1)
    rig.guard.stop()
    await until(lambda: not rig.guard.endings._tasks)


async def test_a_stop_job_that_is_over_before_its_turn_writes_nothing(rig: Rig) -> None:
    rig.backend.hold(SCOPE, 0, 8 * MIB)
    gate = threading.Event()
    busy = asyncio.create_task(rig.reclaimer.call(gate.wait, 60))
    rig.guard.heard(rig.teardown(Phase.ENDING, Source.SYSTEMD1))
    await asyncio.sleep(0.02)
    rig.alive = True
    gate.set()
    await busy
    await until(lambda: not rig.guard.endings._tasks)
    assert rig.backend.reclaimed() == []


async def test_a_cgroup_is_served_for_one_stop_job_at_a_time(rig: Rig) -> None:
    rig.backend.hold(SCOPE, 0, MIB, mapped_bytes=MIB)
    for _ in range(3):
        rig.guard.heard(rig.teardown(Phase.ENDING, Source.SYSTEMD1))
    assert len(rig.guard.endings._tasks) == 1
    rig.guard.stop()
    await until(lambda: not rig.guard.endings._tasks)


async def test_stopping_ends_a_stop_job_that_pauses(rig: Rig) -> None:
    rig.backend.hold(SCOPE, 0, MIB, mapped_bytes=MIB)
    rig.guard.heard(rig.teardown(Phase.ENDING, Source.SYSTEMD1))
    await until(lambda: rig.backend.calls)
    rig.guard.stop()
    await until(lambda: not rig.guard.endings._tasks)
    assert rig.guard.free.is_set()
