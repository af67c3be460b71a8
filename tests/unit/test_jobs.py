"""What is asked for by hand: jobs over the sweep, and the switch that holds every reclaim."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from logindguard import jobs as jobs_module
from logindguard.demands import Demand, Demands
from logindguard.jobs import Jobs, TooManyJobs
from logindguard.kernel.cgroupfs import BadReading
from logindguard.model import JobInfo, JobKind, JobState, Outcome, Phase
from tests.unit.fake_backend import MIB
from tests.unit.test_guard import ALICE, Rig, Sweeping, executors, rig, teardown, until

__all__ = ["executors", "rig"]

BOB = "/user.slice/user-1001.slice"


class Told(list[JobInfo]):
    def states(self) -> list[tuple[int, str]]:
        return [(info.id, info.state) for info in self]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def jobs(rig: Rig, told: Told) -> AsyncIterator[Jobs]:
    jobs = Jobs(rig.sweep, told.append)
    yield jobs
    jobs.stop()
    await until(lambda: not jobs._running)


def sweep(jobs: Jobs, uid: int = 0) -> int:
    return jobs.start(JobKind.SWEEP, "", uid, lambda path: True)


async def settled(rig: Rig) -> None:
    """The sweep has passed once and sleeps for a long time."""
    await until(lambda: rig.sweep.last_took_usec > 0)


@pytest.fixture
def seldom(rig: Rig) -> None:
    """Nothing is swept but what is asked for."""
    config = rig.reclaimer.config
    slow = replace(config.sweep, interval_usec=10**12, retry_first_usec=10**12, retry_max_usec=10**12)
    rig.reclaimer.config = replace(config, sweep=slow)


@pytest.mark.usefixtures("seldom")
async def test_a_job_takes_what_it_wants_and_no_more(rig: Rig, jobs: Jobs, told: Told) -> None:
    async with Sweeping(rig):
        await settled(rig)
        rig.backend.hold(ALICE, 3, 10 * MIB)
        rig.backend.hold(BOB, 2, 10 * MIB)
        job = jobs.start(JobKind.RECLAIM_UNIT, "user-1000.slice", 0, lambda path: path == ALICE)
        assert jobs.list()[0].state is JobState.RUNNING
        await until(lambda: bool(told))
    assert rig.backend.reclaimed() == [ALICE]
    [info] = told
    assert jobs.get(job) == info
    assert (info.state, info.outcome, info.subject) == (JobState.DONE, Outcome.RELEASED, "user-1000.slice")
    assert (info.dying_before, info.dying_after, info.freed_bytes) == (3, 0, 10 * MIB)
    assert info.finished_usec is not None
    assert info.finished_usec >= info.started_usec


@pytest.mark.usefixtures("seldom")
async def test_a_job_does_not_wait_for_a_back_off(rig: Rig, jobs: Jobs, told: Told) -> None:
    rig.backend.hold(ALICE, 3, 10 * MIB, dirty_bytes=10 * MIB)
    async with Sweeping(rig):
        await until(lambda: rig.sweep.standing(rig.backend.state[ALICE].inode).reason != "")
        sweep(jobs)
        await until(lambda: bool(told))
    assert (told[0].state, told[0].outcome) == (JobState.DONE, Outcome.SKIPPED)
    assert "writeback" in told[0].reason
    assert (told[0].dying_before, told[0].dying_after) == (3, 3)


@pytest.mark.usefixtures("seldom")
async def test_nothing_to_do_is_done_at_once(rig: Rig, jobs: Jobs, told: Told) -> None:
    async with Sweeping(rig):
        sweep(jobs)
        await until(lambda: bool(told))
    assert (told[0].state, told[0].outcome) == (JobState.DONE, Outcome.RELEASED)


@pytest.mark.usefixtures("seldom")
async def test_a_cancelled_job_begins_no_further_window(rig: Rig, jobs: Jobs, told: Told) -> None:
    async with Sweeping(rig):
        await settled(rig)
        rig.backend.hold(ALICE, 3, 1000 * MIB)
        rig.backend.per_window_bytes, rig.backend.window_sec = MIB, 0.02
        job = sweep(jobs)
        await until(lambda: len(rig.backend.reclaimed()) >= 2)
        assert jobs.cancel(job)
        await until(lambda: bool(told))
        assert told.states() == [(job, "canceled")]
        await asyncio.sleep(0.1)
        windows = len(rig.backend.reclaimed())
        await asyncio.sleep(0.1)
        assert len(rig.backend.reclaimed()) == windows
    assert not jobs.cancel(job)


@pytest.mark.usefixtures("seldom")
async def test_what_the_end_of_the_service_cut_off_is_not_done(rig: Rig, jobs: Jobs, told: Told) -> None:
    async with Sweeping(rig):
        await settled(rig)
        rig.backend.hold(ALICE, 3, 1000 * MIB)
        rig.backend.per_window_bytes, rig.backend.window_sec = MIB, 0.02
        job = sweep(jobs)
        await until(lambda: len(rig.backend.reclaimed()) >= 2)
    await until(lambda: bool(told))
    assert told.states() == [(job, "canceled")]


async def test_what_was_cancelled_is_not_kept_while_the_host_has_no_room(rig: Rig) -> None:
    demands = Demands()
    waiting = asyncio.create_task(demands.wait_for(Demand(wants=lambda path: True, book=rig.tell)))
    await until(lambda: bool(demands._waiting))
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not demands._waiting


@pytest.mark.usefixtures("seldom")
async def test_a_kernel_that_cannot_be_read_fails_the_job(
    rig: Rig, jobs: Jobs, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise BadReading("/", "cgroup.stat", "no key")

    monkeypatch.setattr(rig.backend, "residues", broken)
    async with Sweeping(rig):
        sweep(jobs)
        await until(lambda: bool(told))
    assert (told[0].state, told[0].reason) == (JobState.FAILED, "/: cgroup.stat: no key")


async def test_limits_and_how_long_they_are_listed(
    rig: Rig, jobs: Jobs, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(jobs_module.MAX_RUNNING_OF_USER):  # the sweep is not running: they wait
        sweep(jobs, uid=1000)
    with pytest.raises(TooManyJobs, match="of this user"):
        sweep(jobs, uid=1000)
    sweep(jobs, uid=1001)
    while len(jobs._running) < jobs_module.MAX_RUNNING:
        sweep(jobs)
    with pytest.raises(TooManyJobs):
        sweep(jobs)
    monkeypatch.setattr(jobs_module, "KEPT", 3)
    jobs.stop()
    await until(lambda: len(told) == jobs_module.MAX_RUNNING)
    assert [info.id for info in jobs.list()] == [14, 15, 16]
    assert jobs.get(1) is None
    sweep(jobs, uid=1000)


# Held


async def test_nothing_is_begun_while_held(rig: Rig) -> None:
    rig.reclaimer.held = lambda: "paused by a test"
    rig.backend.hold(ALICE, 2, MIB)
    scope = f"{ALICE}/session-2.scope"
    rig.backend.hold(scope, 0, 8 * MIB)
    async with Sweeping(rig):
        rig.guard.heard(teardown("session-1.scope"))
        rig.guard.heard(teardown("session-2.scope", phase=Phase.ENDING, inode=rig.backend.state[scope].inode))
        [record] = await rig.until(1)
        assert (record.outcome, record.reason) == (Outcome.SKIPPED, "paused by a test")
        assert [each.unit for each in record.teardowns] == ["session-1.scope"]
        assert rig.guard.teardowns_total == 1
        await until(lambda: rig.paused == ["paused by a test"])
        assert rig.backend.reclaimed() == []
        rig.reclaimer.held = lambda: ""
        rig.sweep.again()  # at once, not at the next look at the pressure
        records = await rig.until(2)
    assert (records[1].target, records[1].outcome) == (ALICE, Outcome.RELEASED)
    assert rig.paused == ["paused by a test", ""]


async def test_a_window_ends_when_it_is_held(rig: Rig) -> None:
    rig.backend.hold(ALICE, 2, 100 * MIB)
    rig.backend.per_window_bytes = MIB
    held = iter(["", "", "", ""])
    rig.reclaimer.held = lambda: next(held, "paused by a test")
    rig.guard.heard(teardown("session-1.scope"))
    [record] = await rig.until(1)
    assert (record.outcome, record.reason) == (Outcome.PARTIAL, "paused by a test")
    assert 0 < record.freed_bytes < 100 * MIB
