"""The pipeline and the sweep, over a backend that does as told; real threads, real event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from logindguard import guard as guard_module
from logindguard.climb import Climb
from logindguard.config import SEC, Config, ReclaimSettings, SweepSettings, TeardownSettings
from logindguard.demands import Demand
from logindguard.guard import Guard
from logindguard.kernel.cgroupfs import CgroupGone, KernelRefused
from logindguard.kernel.pressure import Signs
from logindguard.kernel.writeback import Clocks
from logindguard.ladder import Rung, Stand
from logindguard.model import (
    UNNAMED,
    Decision,
    Mode,
    Outcome,
    Phase,
    Reading,
    Reclaim,
    ReclaimRecord,
    Residue,
    Source,
    Teardown,
    Way,
    Window,
)
from logindguard.reclaimer import Job, Reclaimer, now_usec
from logindguard.record.sentence import sentence
from logindguard.standings import Standing
from logindguard.sweep import Sweep
from tests.unit.fake_backend import MIB, FakeBackend

CONFIG = Config(
    teardown=TeardownSettings(settle_usec=20_000, settle_max_usec=60_000),
    sweep=SweepSettings(
        interval_usec=300_000, cpu_percent=100.0, retry_first_usec=50_000, retry_max_usec=100_000
    ),
)
# Clocks of a kernel that writes at once.
FAST = Clocks(expire_usec=60_000, writeback_usec=20_000, commit_usec=20_000)
ALICE = "/user.slice/user-1000.slice"


def teardown(unit: str, parent: str = ALICE, *, phase: Phase = Phase.ENDED, inode: int = 0) -> Teardown:
    return Teardown(
        unit=unit,
        path=f"{parent}/{unit}",
        inode=inode or abs(hash((unit, parent))),
        phase=phase,
        source=Source.LOGIN1,
        heard_usec=now_usec(),
        session_id="3",
        uid=1000,
        service="sshd",
    )


@dataclass
class Rig:
    backend: FakeBackend
    reclaimer: Reclaimer
    guard: Guard
    sweep: Sweep
    told: list[ReclaimRecord] = field(default_factory=list)
    left: list[tuple[ReclaimRecord, Decision]] = field(default_factory=list)
    paused: list[str] = field(default_factory=list)
    forecasts: list[tuple[int, int]] = field(default_factory=list)
    more: asyncio.Event = field(default_factory=asyncio.Event)
    nudges: int = 0
    removed_usec: int = 0
    harm: str = ""

    def nudge(self) -> bool:
        self.nudges += 1
        return True

    def tell(self, record: ReclaimRecord) -> None:
        self.told.append(record)
        self.more.set()

    async def until(self, count: int) -> list[ReclaimRecord]:
        async with asyncio.timeout(10):
            while len(self.told) < count:
                self.more.clear()
                await self.more.wait()
        return self.told


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # what is waited for sets no event
            await asyncio.sleep(0.005)


async def no_rescan() -> None:
    return


@pytest.fixture(autouse=True)
def calm_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else runs on this machine: a sweep would wait for it."""
    monkeypatch.setattr("logindguard.sweep.read_signs", Signs)


@pytest.fixture
def executors() -> Iterator[tuple[ThreadPoolExecutor, ThreadPoolExecutor]]:
    with ThreadPoolExecutor(1, "prompt") as prompt, ThreadPoolExecutor(1, "idle") as idle:
        yield prompt, idle


@pytest.fixture
async def rig(
    executors: tuple[ThreadPoolExecutor, ThreadPoolExecutor], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Rig]:
    monkeypatch.setattr("logindguard.sweep.read_signs", Signs)  # however busy this machine is
    monkeypatch.setattr("logindguard.climb.read_clocks", lambda: FAST)
    monkeypatch.setattr("logindguard.ladder.NUDGE_USEC", 20_000)
    backend = FakeBackend()
    reclaimer = Reclaimer(backend, CONFIG, prompt=executors[0], idle=executors[1])
    rig: Rig

    def tell(record: ReclaimRecord) -> None:
        rig.tell(record)

    guard = Guard(reclaimer, tell=tell, leave=lambda record, decision: rig.left.append((record, decision)))
    sweep = Sweep(
        reclaimer,
        tell=tell,
        tell_paused=lambda reason: rig.paused.append(reason),
        tell_forecast=lambda dying, usec: rig.forecasts.append((dying, usec)),
        free=guard.free,
        rescan=no_rescan,
        climb=Climb(reclaimer, nudge=lambda: rig.nudge(), offline_usec=lambda: rig.removed_usec),
        held=lambda: rig.harm,
    )
    rig = Rig(backend, reclaimer, guard, sweep)
    running = asyncio.create_task(guard.run())
    yield rig
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_burst_is_one_record(rig: Rig) -> None:
    rig.backend.hold(ALICE, 3, 12 * MIB)
    for number in range(3):
        rig.guard.heard(teardown(f"session-{number}.scope"))
    [record] = await rig.until(1)
    assert record.way is Way.AFTER
    assert record.outcome is Outcome.RELEASED
    assert (record.dying_before, record.dying_after) == (3, 0)
    assert record.freed_bytes == record.residue_before_bytes == 12 * MIB
    assert [each.unit for each in record.teardowns] == [f"session-{n}.scope" for n in range(3)]
    assert record.release_usec is not None
    assert record.release_usec >= 20_000  # settle included
    assert rig.backend.threads == {"prompt"}


async def test_a_gone_parent_is_served_where_its_residue_went(rig: Rig) -> None:
    rig.backend.hold("/user.slice", 4, MIB)
    rig.guard.heard(teardown("session-1.scope"))
    rig.guard.heard(teardown("user-1000.slice", "/user.slice"))
    [record] = await rig.until(1)
    assert record.target == "/user.slice"
    assert {each.unit for each in record.teardowns} == {"session-1.scope", "user-1000.slice"}


async def test_nothing_dying_is_told_as_released_at_once(rig: Rig) -> None:
    rig.backend.hold(ALICE, 0, 0)
    rig.guard.heard(teardown("session-1.scope"))
    [record] = await rig.until(1)
    assert (record.outcome, record.writes, record.freed_bytes) == (Outcome.RELEASED, 0, 0)


async def test_windows_go_on_while_they_free(rig: Rig) -> None:
    rig.backend.hold(ALICE, 3, 10 * MIB)
    rig.backend.per_window_bytes = 3 * MIB
    rig.guard.heard(teardown("session-1.scope"))
    [record] = await rig.until(1)
    assert (record.writes, record.freed_bytes, record.outcome) == (4, 10 * MIB, Outcome.RELEASED)


async def test_what_is_being_reclaimed_at_a_stop_is_told(rig: Rig) -> None:
    rig.backend.hold(ALICE, 3, 10 * MIB)
    rig.backend.per_window_bytes, rig.backend.window_sec = 3 * MIB, 0.2
    rig.guard.heard(teardown("session-1.scope"))
    await until(lambda: bool(rig.backend.reclaimed()))
    rig.guard.stop()
    await rig.guard.free.wait()
    [record] = rig.told
    assert (record.writes, record.freed_bytes) == (1, 3 * MIB)


async def test_a_count_of_the_whole_machine_is_waited_for(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on cgroup v1, where memcgs that hold nothing any more are still counted for some milliseconds."""
    backend, counts = rig.backend, [9, 9, 4, 1]
    read, reclaim = backend.read, backend.reclaim

    def shared(path: str) -> Reading:
        if backend.reclaimed():
            dying = counts.pop(0) if len(counts) > 1 else counts[0]
            backend.state[path] = replace(backend.state[path], dying=dying)
        return replace(read(path), shields=False)

    def released(residue: Residue, plan: Reclaim, should_stop: Callable[[], bool]) -> Window:
        window = reclaim(residue, plan, should_stop)
        return replace(window, after=replace(window.after, dying=residue.dying))

    monkeypatch.setattr(backend, "read", shared)
    monkeypatch.setattr(backend, "reclaim", released)
    monkeypatch.setattr(backend, "mode", Mode.SHARED)
    rig.reclaimer.config = replace(CONFIG, reclaim=ReclaimSettings(shared=True))
    backend.hold(ALICE, 9, 2 * MIB)
    rig.guard.heard(teardown("session-1.scope"))
    [record] = await rig.until(1)
    assert (record.outcome, record.dying_before, record.dying_after) == (Outcome.RELEASED, 9, 1)


async def test_mapped_pages_of_others_are_kept_and_said(rig: Rig) -> None:
    rig.backend.hold(ALICE, 1, 50 * MIB, mapped_bytes=40 * MIB)
    rig.guard.heard(teardown("session-1.scope"))
    [record] = await rig.until(1)
    assert record.outcome is Outcome.MAPPED_KEPT
    assert record.mapped_kept_bytes == 40 * MIB
    assert record.freed_bytes == 10 * MIB


async def test_a_decision_against_is_told_and_left_to_the_sweep(rig: Rig) -> None:
    rig.backend.hold(ALICE, 1, 44 * MIB, shmem_bytes=4096)
    rig.backend.swap_on = True
    rig.guard.heard(teardown("session-1.scope"))
    [record] = await rig.until(1)
    assert (record.outcome, record.writes) == (Outcome.SKIPPED, 0)
    assert "shared memory" in record.reason
    assert rig.left[0][0] is record


async def test_a_kernel_that_refuses_is_an_outcome(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.backend.hold(ALICE, 1, MIB)

    def refuse(*_: object) -> None:
        raise KernelRefused(ALICE, "memory.reclaim", OSError(5, "I/O"))

    monkeypatch.setattr(rig.backend, "reclaim", refuse)
    rig.guard.heard(teardown("session-1.scope"))
    [record] = await rig.until(1)
    assert record.outcome is Outcome.FAILED
    assert record.reason == f"{ALICE}: memory.reclaim: Input/output error"
    assert record.dying_after == 1


async def test_a_stop_job_starts_before_the_rmdir(rig: Rig) -> None:
    scope = f"{ALICE}/session-1.scope"
    rig.backend.hold(scope, 0, 8 * MIB, mapped_bytes=MIB)
    inode = rig.backend.state[scope].inode
    rig.guard.heard(teardown("session-1.scope", phase=Phase.ENDING, inode=inode))
    assert not rig.guard.free.is_set()
    await until(lambda: bool(rig.backend.reclaimed()))
    await asyncio.wait_for(rig.guard.free.wait(), 5)  # between two looks the sweep may work
    rig.backend.hold(scope, 0, 3 * MIB, mapped_bytes=MIB)  # its processes go on reading meanwhile
    rig.backend.state[scope] = replace(rig.backend.state[scope], inode=inode)
    await until(lambda: len(rig.backend.reclaimed()) == 2)
    assert rig.told == []
    del rig.backend.state[scope]
    [record] = await rig.until(1)
    assert (record.way, record.target, record.freed_bytes) == (Way.BEFORE, scope, 9 * MIB)
    assert (record.outcome, record.reason) == (Outcome.PARTIAL, "the rest is in use by its last processes")
    await asyncio.wait_for(rig.guard.free.wait(), 5)


async def test_without_the_way_after_the_sweep_has_it_all(rig: Rig) -> None:
    rig.reclaimer.config = replace(CONFIG, teardown=replace(CONFIG.teardown, after=False))
    rig.backend.hold(ALICE, 1, MIB)
    rig.guard.heard(teardown("session-1.scope"))
    sweeping = asyncio.create_task(rig.sweep.run())
    [record] = await rig.until(1)
    assert (record.way, record.freed_bytes) == (Way.SWEEP, MIB)
    assert rig.guard.teardowns_total == 1
    sweeping.cancel()
    await asyncio.gather(sweeping, return_exceptions=True)


async def test_a_sweep_that_is_off_waits_for_being_on(rig: Rig) -> None:
    rig.reclaimer.config = replace(CONFIG, sweep=replace(CONFIG.sweep, enabled=False))
    rig.backend.hold(ALICE, 1, MIB)
    sweeping = asyncio.create_task(rig.sweep.run())
    await asyncio.sleep(0.05)
    rig.sweep.wake()
    await asyncio.sleep(0.05)
    assert rig.backend.calls == []
    rig.reclaimer.config = CONFIG
    rig.sweep.wake()
    await rig.until(1)
    sweeping.cancel()
    await asyncio.gather(sweeping, return_exceptions=True)


async def test_a_sweep_that_is_put_off_stops_amid_a_pass(rig: Rig) -> None:
    for path in (ALICE, "/user.slice/user-1001.slice"):
        rig.backend.hold(path, 2, 1000 * MIB)
    rig.backend.per_window_bytes, rig.backend.window_sec = MIB, 0.01
    config = rig.reclaimer.config
    async with Sweeping(rig):
        await until(lambda: bool(rig.backend.reclaimed()))
        rig.reclaimer.config = replace(config, sweep=replace(config.sweep, enabled=False))
        rig.sweep.wake()
        await rig.until(1)
        windows = len(rig.backend.reclaimed())
        await asyncio.sleep(0.2)
        assert len(rig.backend.reclaimed()) == windows
        rig.reclaimer.config = config
        rig.sweep.wake()
        await until(lambda: len(rig.backend.reclaimed()) > windows)


async def test_an_idle_worker_that_does_not_get_on_is_told_as_a_pause(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All CPUs were taken after it had begun: no pressure showed then."""
    cpu_percent, has_turn = [99.0], threading.Event()
    monkeypatch.setattr("logindguard.sweep.read_signs", lambda: Signs(cpu_percent=cpu_percent[0]))
    monkeypatch.setattr("logindguard.sweep.PRESSURE_POLL_SEC", 0.02)
    total = rig.backend.total_dying
    monkeypatch.setattr(rig.backend, "total_dying", lambda: has_turn.wait(10) and total())
    async with Sweeping(rig):
        await until(lambda: rig.paused == ["CPU pressure (99 % some)"])
        has_turn.set()
        await until(lambda: rig.sweep.last_took_usec > 0)
        assert (
            rig.sweep.paused == "CPU pressure (99 % some)"
        )  # nothing was dying, and it looks again all the same
        cpu_percent[0] = 5.0
        await until(lambda: rig.sweep.paused == "")
    assert rig.paused == ["CPU pressure (99 % some)", ""]


async def test_a_stop_job_for_another_cgroup_at_the_path_is_left_alone(rig: Rig) -> None:
    rig.backend.hold(f"{ALICE}/session-1.scope", 0, 8 * MIB)
    rig.guard.heard(teardown("session-1.scope", phase=Phase.ENDING, inode=999))
    await asyncio.wait_for(rig.guard.free.wait(), 5)
    assert rig.told == []
    assert rig.backend.reclaimed() == []


async def test_observing_writes_nothing(rig: Rig) -> None:
    rig.backend.hold(ALICE, 1, MIB)
    rig.backend.mode, rig.backend.reason = Mode.OBSERVE, "this kernel heals itself"
    rig.guard.heard(teardown("session-1.scope"))
    [record] = await rig.until(1)
    assert (record.outcome, record.reason) == (Outcome.SKIPPED, "this kernel heals itself")
    assert (record.dying_before, record.dying_after) == (1, 1)
    assert rig.backend.calls == [("read", ALICE)]


async def test_what_is_too_much_is_shed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "MAX_WAITING", 5)
    rig.backend.hold("/system.slice", 3, MIB)
    for _ in range(2):  # what was served is no longer counted
        for number in range(8):
            rig.guard.heard(teardown(f"cron-{number}.service", "/system.slice"))
        record = (await rig.until(1)).pop()
        assert len(record.teardowns) == 5
    assert (rig.guard.teardowns_total, rig.guard.shed_total) == (16, 6)


async def test_one_user_leaves_room_for_others(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "MAX_WAITING", 10)
    rig.backend.hold(ALICE, 3, MIB)
    rig.backend.hold("/user.slice/user-1001.slice", 3, MIB)
    manager = f"{ALICE}/user@1000.service/app.slice"  # is gone: they are served where the residue went
    for number in range(50):
        rig.guard.heard(teardown(f"session-{number}.scope", manager))
    rig.guard.heard(teardown("session-1.scope", "/user.slice/user-1001.slice"))
    records = await rig.until(2)
    assert {record.target: len(record.teardowns) for record in records} == {
        ALICE: 5,
        "/user.slice/user-1001.slice": 1,
    }
    assert rig.guard.shed_total == 45


async def test_a_record_names_no_more_than_fits(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user makes and removes thousands of cgroups a second below its own manager."""
    monkeypatch.setattr(guard_module, "MAX_NAMED", 5)
    rig.backend.hold(ALICE, 3, MIB)
    for number in range(8):
        rig.guard.heard(teardown(f"session-{number}.scope"))
    [record] = await rig.until(1)
    assert [each.unit for each in record.teardowns] == [f"session-{number}.scope" for number in range(3, 8)]
    assert record.context == {UNNAMED: "3"}
    assert "of 8 ended sessions" in sentence(record)
    assert (rig.guard.teardowns_total, rig.guard.shed_total) == (8, 0)


async def test_the_loop_is_never_blocked_by_the_kernel(rig: Rig) -> None:
    rig.backend.hold(ALICE, 1, MIB)
    rig.backend.window_sec = 0.5
    rig.guard.heard(teardown("session-1.scope"))
    turns = 0
    while not rig.told:
        await asyncio.sleep(0.001)
        turns += bool(rig.backend.reclaimed())
    assert rig.backend.reclaimed() == [ALICE]
    assert turns > 20  # of the loop while the window was open


# The sweep


@dataclass
class Sweeping:
    rig: Rig

    async def __aenter__(self) -> Rig:
        self.task = asyncio.create_task(self.rig.sweep.run())
        return self.rig

    async def __aexit__(self, *_: object) -> None:
        self.rig.sweep.stop()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_a_pass_takes_the_deepest_first(rig: Rig) -> None:
    rig.backend.hold("/user.slice", 2, MIB)
    rig.backend.hold(ALICE, 2, MIB)
    async with Sweeping(rig):
        records = await rig.until(2)
    assert [record.target for record in records] == [ALICE, "/user.slice"]
    assert all(record.way is Way.SWEEP for record in records)


async def test_only_parents_that_stay_are_swept_at_idle_priority(rig: Rig) -> None:
    rig.backend.hold("/user.slice", 2, MIB)
    async with Sweeping(rig):
        await rig.until(1)
        assert rig.backend.threads == {"idle"}
        rig.backend.threads.clear()
        rig.backend.hold(ALICE, 2, MIB)
        await rig.until(2)
        assert rig.backend.threads == {"prompt"}


async def test_nothing_dying_costs_one_reading(rig: Rig) -> None:
    rig.backend.hold("/user.slice", 0, MIB)
    async with Sweeping(rig):
        await until(lambda: len(rig.backend.calls) >= 3)
    assert {what for what, _ in rig.backend.calls} == {"total"}


async def test_what_a_teardown_left_is_tried_again(rig: Rig) -> None:
    rig.backend.hold(ALICE, 2, MIB, dirty_bytes=MIB)
    async with Sweeping(rig):
        rig.guard.heard(teardown("session-1.scope"))
        [record] = await rig.until(1)
        assert "writeback" in record.reason
        rig.sweep.leave(*rig.left[0])
        rig.backend.state[ALICE] = replace(rig.backend.state[ALICE], dirty_bytes=0)
        records = await rig.until(2)
    assert (records[1].way, records[1].outcome) == (Way.SWEEP, Outcome.RELEASED)


async def test_a_residue_climbs_to_its_verdict_and_down_again(rig: Rig) -> None:
    rig.backend.hold(ALICE, 2, MIB, dirty_bytes=MIB)
    inode = rig.backend.state[ALICE].inode
    async with Sweeping(rig):
        [record] = await rig.until(1)
        assert record.reason == "held by 1M that waits to be written to disk"
        assert (record.outcome, record.dying_after) == (Outcome.SKIPPED, 2)
        standing = rig.sweep.standing(inode)
        assert (standing.stand.rung, standing.reason) == (Rung.VERDICT, record.reason)
        assert rig.nudges == 1
        # The same again is not told again, by a later try or after another teardown.
        rig.guard.heard(teardown("session-1.scope"))
        await until(lambda: bool(rig.left))
        rig.sweep.leave(*rig.left[0])
        assert rig.sweep.standing(inode).stand.rung is Rung.WRITEBACK
        await until(lambda: rig.sweep.standing(inode).stand.rung is Rung.VERDICT)
        assert [each.way for each in rig.told] == [Way.SWEEP, Way.AFTER]
        # Something else is.
        rig.backend.state[ALICE] = replace(rig.backend.state[ALICE], shmem_bytes=4096)
        await rig.until(3)
        assert (
            rig.told[-1].reason
            == "held by 1M that waits to be written to disk and 4K of tmpfs or shared memory"
        )
        rig.backend.state[ALICE] = replace(rig.backend.state[ALICE], dirty_bytes=0, shmem_bytes=0)
        await until(lambda: rig.told[-1].outcome is Outcome.RELEASED)
    assert rig.sweep.standing(inode) == Standing()


async def test_what_went_by_itself_begins_anew(rig: Rig) -> None:
    rig.backend.hold(ALICE, 5, MIB, dirty_bytes=MIB)
    inode = rig.backend.state[ALICE].inode
    async with Sweeping(rig):
        await rig.until(1)
        rig.backend.state[ALICE] = replace(rig.backend.state[ALICE], dying=4)
        await until(lambda: rig.sweep.standing(inode).stand.rung is Rung.RECLAIM)
        await until(lambda: rig.sweep.standing(inode).stand.rung is Rung.VERDICT)


async def test_a_verdict_is_new_where_it_names_another_kind(rig: Rig) -> None:
    climb = Climb(rig.reclaimer)
    rig.backend.hold(ALICE, 2, MIB, dirty_bytes=MIB)
    inode = rig.backend.state[ALICE].inode
    record, decision = await rig.reclaimer.run(Job(way=Way.SWEEP, path=ALICE))

    async def new(**held_bytes: Any) -> bool:
        rig.backend.state[ALICE] = replace(rig.backend.state[ALICE], **held_bytes)
        old = replace(climb.standings.pop(inode), stand=Stand(rung=Rung.VERDICT, since_usec=1))
        return (await climb.after_try(record, decision, old))[1]

    assert await new(dirty_bytes=0, shmem_bytes=1 << 20)
    assert await new(dirty_bytes=4096)
    assert not await new(dirty_bytes=2 << 20)  # now it is the larger one
    assert not await new(dirty_bytes=0)  # two readings one after the other differ by some pages
    assert not await new(dirty_bytes=4096)


async def test_a_teardown_amid_a_try_begins_anew(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logindguard.climb.read_clocks", Clocks)
    climb = Climb(rig.reclaimer)
    rig.backend.hold(ALICE, 2, MIB, dirty_bytes=MIB)
    inode = rig.backend.state[ALICE].inode
    record, decision = await rig.reclaimer.run(Job(way=Way.SWEEP, path=ALICE))
    old = Standing(path=ALICE, stand=Stand(rung=Rung.VERDICT, tries=9, since_usec=1), dying=2)
    climb.leave(record, decision)
    await climb.after_try(record, decision, old)
    assert climb.standings.get(inode).stand.rung is Rung.WRITEBACK


async def test_a_sweep_gives_way_where_cgroups_come_and_go(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logindguard.sweep.QUIET_USEC", 300_000)
    rig.backend.hold(ALICE, 2, MIB)
    rig.removed_usec = now_usec()
    async with Sweeping(rig):
        await rig.until(1)
    assert now_usec() >= rig.removed_usec + 300_000


async def test_it_gives_way_for_a_while_only(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logindguard.sweep.QUIET_MOST_SEC", 0.1)
    rig.backend.hold(ALICE, 2, MIB)
    rig.removed_usec = now_usec() + 3600 * SEC
    async with Sweeping(rig):
        await rig.until(1)


async def test_no_nudge_where_a_cgroup_was_just_removed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logindguard.sweep.QUIET_MOST_SEC", 0.0)
    rig.removed_usec = now_usec() + SEC
    rig.backend.hold(ALICE, 2, MIB, dirty_bytes=MIB)
    async with Sweeping(rig):
        await rig.until(1)
    assert rig.nudges == 0


async def test_a_refusal_says_itself_what_holds_the_rest(rig: Rig) -> None:
    rig.backend.swap_on = True
    rig.backend.hold(ALICE, 2, MIB, shmem_bytes=MIB)
    async with Sweeping(rig):
        await until(lambda: rig.sweep.standing(rig.backend.state[ALICE].inode).stand.rung is Rung.VERDICT)
    assert "explain" not in {what for what, _ in rig.backend.calls}
    assert "would swap out" in rig.sweep.standing(rig.backend.state[ALICE].inode).reason


async def test_a_write_over_the_share_is_told_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    rig.reclaimer.config = replace(CONFIG, sweep=replace(CONFIG.sweep, cpu_percent=1.0))
    rig.backend.predicted_write_usec = 94_000
    rig.backend.hold(ALICE, 2, 3 * MIB)
    rig.backend.per_window_bytes = MIB
    async with Sweeping(rig):
        await until(lambda: rig.backend.state[ALICE].dying == 0)
    assert [each.message for each in caplog.records if "predicted" in each.message] == [
        f"One write to {ALICE} is predicted to take 94 ms, and the sweep has 10 ms of a second: "
        "it rests for longer after each."
    ]


async def test_a_sweep_yields_to_a_teardown(rig: Rig) -> None:
    rig.backend.hold(ALICE, 2, 4 * MIB)
    rig.guard.free.clear()
    rig.backend.per_window_bytes = MIB
    async with Sweeping(rig):
        await asyncio.sleep(0.1)
        waiting = len(rig.backend.reclaimed())
        assert waiting <= 1  # between two windows it saw the teardown
        rig.guard.free.set()
        await rig.until(1)
    assert rig.backend.state[ALICE].dying == 0


async def test_pressure_pauses_and_says_so_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    percents = iter([50.0, 50.0, 7.0, 1.0])
    monkeypatch.setattr("logindguard.sweep.read_signs", lambda: Signs(memory_percent=next(percents, 0.0)))
    monkeypatch.setattr("logindguard.sweep.PRESSURE_POLL_SEC", 0.01)
    rig.backend.hold(ALICE, 2, MIB)
    async with Sweeping(rig):
        await rig.until(1)
    assert rig.paused == ["memory pressure (50 % some)", ""]


async def test_who_asks_is_served_while_a_pass_waits_for_the_cpus(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logindguard.sweep.read_signs", lambda: Signs(cpu_percent=99.0))
    monkeypatch.setattr("logindguard.sweep.PRESSURE_POLL_SEC", 0.01)
    rig.backend.hold(ALICE, 2, MIB)
    async with Sweeping(rig):
        await until(lambda: rig.paused == ["CPU pressure (99 % some)"])
        assert rig.backend.reclaimed() == []
        await rig.sweep.demand(Demand(wants=lambda path: True, book=lambda record: None))
    assert rig.backend.state[ALICE].dying == 0
    assert rig.paused == ["CPU pressure (99 % some)"]


async def test_harm_holds_the_sweep_back_and_not_who_asks_for_one(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logindguard.sweep.PRESSURE_POLL_SEC", 0.01)
    rig.harm = "it was read again"
    rig.backend.hold(ALICE, 2, MIB)
    async with Sweeping(rig):
        await until(lambda: rig.paused == ["it was read again"])
        assert rig.backend.reclaimed() == []
        rig.harm = ""
        await rig.until(1)
        rig.harm = "it was read again"
        rig.backend.hold(ALICE, 2, MIB)
        await rig.sweep.demand(Demand(wants=lambda path: True, book=lambda record: None))
    assert rig.backend.state[ALICE].dying == 0
    assert rig.paused[:2] == ["it was read again", ""]


async def test_a_first_pass_over_many_is_announced_and_waits(rig: Rig) -> None:
    rig.reclaimer.config = replace(
        CONFIG, sweep=replace(CONFIG.sweep, grace_dying=1_000, grace_usec=1_000_000, cpu_percent=2.0)
    )
    rig.backend.hold(ALICE, 20_000, MIB)
    async with Sweeping(rig):
        await until(lambda: bool(rig.forecasts))
        assert rig.forecasts == [(20_000, 10_000_000)]
        assert rig.backend.reclaimed() == []
        await rig.until(1)


async def test_a_failing_pass_does_not_end_the_sweep(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.backend.hold(ALICE, 2, MIB)
    working, failures = rig.backend.residues, [1]

    def fail_once() -> object:
        if failures:
            failures.pop()
            raise KernelRefused("/", "cgroup.stat", OSError(5, "I/O"))
        return working()

    monkeypatch.setattr(rig.backend, "residues", fail_once)
    async with Sweeping(rig):
        await rig.until(1)


async def test_a_path_that_was_made_anew_is_not_tried_for_ever(rig: Rig) -> None:
    """The residue that was left is another cgroup's by now: one try finds out."""
    rig.backend.hold(ALICE, 2, MIB, dirty_bytes=MIB)
    rig.guard.heard(teardown("session-1.scope"))
    await rig.until(1)
    rig.sweep.leave(*rig.left[0])
    rig.backend.state[ALICE] = replace(rig.backend.state[ALICE], inode=999)
    async with Sweeping(rig):
        await asyncio.sleep(0.3)
        rig.backend.calls.clear()
        await asyncio.sleep(0.2)
        assert len(rig.backend.calls) < 20


async def test_one_users_cgroups_do_not_keep_others_waiting(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = "/user.slice/user-1001.slice"
    parents = [f"{ALICE}/user@1000.service/app.slice/p{number}" for number in range(20)]
    for path in (*parents, bob):
        rig.backend.hold(path, 1, MIB)
    reclaim, begun, gate = rig.backend.reclaim, threading.Event(), threading.Event()

    def gated(residue: Residue, plan: Reclaim, should_stop: Callable[[], bool]) -> Window:
        begun.set()
        gate.wait(60)
        return reclaim(residue, plan, should_stop)

    monkeypatch.setattr(rig.backend, "reclaim", gated)
    for path in parents:
        rig.guard.heard(teardown("run-1.scope", path))
    await until(begun.is_set)
    rig.guard.heard(teardown("session-2.scope", bob))  # behind all of them
    await asyncio.sleep(0.1)  # until it has settled
    gate.set()
    await rig.until(21)
    assert rig.backend.reclaimed()[1] == bob
    assert (rig.guard._waiting, rig.guard.waiting_count) == ({}, 0)


async def test_a_large_residue_does_not_keep_others_waiting(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard_module, "SERVE_USEC", 50_000)
    rig.backend.hold(ALICE, 3, 1000 * MIB)
    rig.backend.per_window_bytes, rig.backend.window_sec = MIB, 0.02
    rig.guard.heard(teardown("session-1.scope"))
    [record] = await rig.until(1)
    assert record.outcome is Outcome.PARTIAL
    assert 1 <= record.writes <= 10
    assert rig.left[0][0] is record


async def test_a_stop_that_comes_with_a_wake_up_is_not_lost(
    executors: tuple[ThreadPoolExecutor, ThreadPoolExecutor],
) -> None:
    """asyncio.wait_for of Python 3.11 can return the result and forget the cancellation."""
    for turns in range(6):
        backend = FakeBackend()
        backend.hold(ALICE, 1, MIB)
        guard = Guard(
            Reclaimer(backend, CONFIG, prompt=executors[0], idle=executors[1]),
            tell=lambda record: None,
            leave=lambda record, decision: None,
        )
        task = asyncio.create_task(guard.run())
        guard.heard(teardown("session-1.scope"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        guard.heard(teardown("session-2.scope"))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        async with asyncio.timeout(5):
            await asyncio.gather(task, return_exceptions=True)


async def test_outside_the_roots_is_nobodys(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(path: str) -> str:
        raise CgroupGone(path)

    monkeypatch.setattr(rig.backend, "nearest_live", gone)
    rig.guard.heard(teardown("session-1.scope"))
    await asyncio.sleep(0.1)
    await asyncio.wait_for(rig.guard.free.wait(), 5)
    assert rig.told == []
    monkeypatch.undo()
    rig.backend.hold(ALICE, 1, MIB)
    rig.guard.heard(teardown("session-2.scope"))
    await rig.until(1)


async def test_a_long_job_lets_others_retry(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logindguard.sweep.JOB_USEC", 50_000)
    rig.backend.hold("/system.slice", 1, 1000 * MIB)
    rig.backend.hold(ALICE, 2, MIB, dirty_bytes=MIB)
    rig.backend.per_window_bytes, rig.backend.window_sec = MIB, 0.02
    rig.guard.heard(teardown("session-1.scope"))
    await rig.until(1)
    async with Sweeping(rig):
        rig.sweep.leave(*rig.left[0])
        rig.backend.state[ALICE] = replace(rig.backend.state[ALICE], dirty_bytes=0)
        await until(lambda: ALICE in rig.backend.reclaimed())
    assert rig.backend.state["/system.slice"].dying == 1


async def test_a_job_whose_time_was_over_goes_on_at_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logindguard.sweep.JOB_USEC", 50_000)
    seldom = replace(CONFIG.sweep, interval_usec=3_600 * SEC, retry_first_usec=3_600 * SEC)
    rig.reclaimer.config = replace(CONFIG, sweep=replace(seldom, retry_max_usec=3_600 * SEC))
    rig.backend.hold(ALICE, 3, 30 * MIB)
    rig.backend.per_window_bytes, rig.backend.window_sec = MIB, 0.01
    async with Sweeping(rig):
        await until(lambda: rig.backend.state[ALICE].dying == 0)
        await until(lambda: rig.told[-1].outcome is Outcome.RELEASED)
    assert len(rig.told) > 1
    assert sum(record.freed_bytes for record in rig.told) == 30 * MIB


async def test_why_a_pass_broke_off_is_told_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = [0]

    def refuse() -> int:
        calls[0] += 1
        raise KernelRefused("/", "cgroup.stat", OSError(5, "I/O"))

    monkeypatch.setattr(rig.backend, "total_dying", refuse)
    rig.reclaimer.config = replace(CONFIG, sweep=replace(CONFIG.sweep, interval_usec=10_000))
    async with Sweeping(rig):
        await until(lambda: calls[0] >= 4)
    assert [each.message for each in caplog.records if "broke off" in each.message] == [
        "The sweep broke off: /: cgroup.stat: Input/output error."
    ]


async def test_a_shorter_interval_holds_at_once(rig: Rig) -> None:
    rig.reclaimer.config = replace(CONFIG, sweep=replace(CONFIG.sweep, interval_usec=3_600_000_000))
    async with Sweeping(rig):
        await until(lambda: len(rig.backend.calls) >= 2)
        await asyncio.sleep(0.05)
        rig.backend.calls.clear()
        rig.reclaimer.config = CONFIG
        rig.sweep.wake()
        await until(lambda: len(rig.backend.calls) >= 1)
