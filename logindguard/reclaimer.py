"""One reclaim from reading to record: the part that the guard and the sweep share.

The kernel work runs on one of two threads. What a logout may have to wait for
runs at normal priority, whoever asked: an idle writer on a busy machine would
hold up the rmdir of its target. Only parents that nobody removes are swept at
idle priority, and where that would take for ever not even those.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from . import policy
from .config import Config
from .kernel.backend import Backend
from .kernel.cgroupfs import PERMANENT, CgroupGone, KernelError, Unsupported
from .kernel.idle import thread_cpu_usec
from .kernel.ledger import LedgerBusy, LedgerError
from .model import (
    Decision,
    Mode,
    Outcome,
    Reading,
    Reclaim,
    ReclaimRecord,
    Residue,
    Skip,
    Teardown,
    Wait,
    Way,
    Window,
)

T = TypeVar("T")
# A memcg is freed by RCU and a kworker some milliseconds after its last page; busy machines take longer.
RELEASE_POLL_SEC = 0.05
RELEASE_POLLS = 6


def now_usec() -> int:
    return time.monotonic_ns() // 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be reclaimed, how, and between two windows what to wait for (told the CPU time since)."""

    way: Way
    path: str
    teardowns: tuple[Teardown, ...] = ()
    shape: Callable[[Reclaim], Reclaim] = lambda decision: decision
    should_stop: Callable[[], bool] = lambda: False
    vacated: bool = False  # of a cgroup that is about to be removed: its processes are gone
    max_usec: int = 1 << 62  # begin no further window after so long
    prompt: bool = False  # a sweep too: an idle thread would not get on
    rest: Callable[[int], Awaitable[None]] | None = None


@dataclass(slots=True, kw_only=True)
class Spent:
    """CPU time that calls took on a worker thread, also those that raised."""

    cpu_usec: int = 0


@dataclass(slots=True, kw_only=True)
class _Account(Spent):
    """What a job has come to so far."""

    started_usec: int = field(default_factory=now_usec)
    rested_cpu_usec: int = 0
    first: Reading | None = None
    last: Residue | None = None
    decision: Decision | None = None
    windows: list[Window] = field(default_factory=list)
    failure: tuple[Outcome, str] | None = None


class Reclaimer:
    """Runs jobs on the worker threads and books them; nothing here blocks the event loop."""

    def __init__(
        self,
        backend: Backend,
        config: Config,
        *,
        prompt: Executor,
        idle: Executor,
        held: Callable[[], str] = lambda: "",
    ) -> None:
        self.backend = backend
        self.config = config
        self.held = held  # why nothing may be reclaimed now; empty where it may
        self._prompt = prompt
        self._idle = idle
        self._in_flight: set[Future[Any]] = set()

    async def call(
        self, function: Callable[..., T], *args: object, idle: bool = False, spent: Spent | None = None
    ) -> T:
        """Call what blocks in the kernel, on the prompt worker or the idle one. `spent` adds up its time."""
        cpu_usec = 0

        def timed() -> T:
            nonlocal cpu_usec
            begin_usec = thread_cpu_usec()
            try:
                return function(*args)
            finally:
                cpu_usec = thread_cpu_usec() - begin_usec

        future = (self._idle if idle else self._prompt).submit(timed)
        if not idle:
            self._in_flight.add(future)
            future.add_done_callback(self._in_flight.discard)
        try:
            return await asyncio.wrap_future(future)
        finally:
            if spent is not None:
                spent.cpu_usec += cpu_usec

    @property
    def prompt_is_busy(self) -> bool:
        """Whether the prompt worker has something to do, be it for somebody who no longer waits for it."""
        return bool(self._in_flight)

    async def _booked(self, account: _Account, job: Job, function: Callable[..., T], *args: object) -> T:
        idle = job.way is Way.SWEEP and job.path in PERMANENT and not job.prompt
        return await self.call(function, *args, idle=idle, spent=account)

    async def run(self, job: Job) -> tuple[ReclaimRecord, Decision]:
        """Reclaim what dying memcgs hold under `job.path`, window by window, until a decision ends it."""
        account = _Account()
        try:
            await self._windows(account, job)
        except CgroupGone:
            account.failure = (Outcome.GONE, "the cgroup was removed meanwhile")
        except LedgerBusy as busy:
            account.decision = Wait(reason=str(busy), outside=True)
        except (KernelError, LedgerError, OSError) as error:
            account.failure = (Outcome.FAILED, str(error))
        return self._record(account, job, *_verdict(account)), _last_word(account)

    async def _windows(self, account: _Account, job: Job) -> None:
        if self.backend.mode is Mode.OBSERVE:
            account.decision = Skip(reason=self.backend.reason)
            with contextlib.suppress(Unsupported):  # where there is no count for each cgroup
                account.last = (await self._booked(account, job, self.backend.read, job.path)).residue
            return
        polls = RELEASE_POLLS
        while True:
            if held := self.held():
                account.decision = Wait(reason=held, outside=True)
                return
            reading = await self._booked(account, job, self.backend.read, job.path)
            account.first = account.first or reading
            account.last = reading.residue
            account.decision = decision = policy.decide(reading, self.config, job.way)
            if (
                account.windows
                and not isinstance(decision, Reclaim)
                and reading.residue.dying
                and reading.residue.file_bytes <= policy.NOISE_BYTES
                and polls
            ):
                polls -= 1
                await asyncio.sleep(RELEASE_POLL_SEC)
                await _rest(account, job)
                continue
            if not isinstance(decision, Reclaim):
                return
            window = await self._booked(
                account, job, self.backend.reclaim, reading.residue, job.shape(decision), self._stop(job)
            )
            account.windows.append(window)
            account.last = window.after
            # Released, and still a count: v1 has only that of the whole machine, which has yet to fall.
            if not _goes_on(window) and not (window.outcome is Outcome.RELEASED and window.after.dying):
                return
            await _rest(account, job)
            if job.should_stop() or now_usec() - account.started_usec >= job.max_usec:
                return

    def _stop(self, job: Job) -> Callable[[], bool]:
        return lambda: job.should_stop() or bool(self.held())

    async def run_ending(
        self, job: Job, *, rest: Callable[[bool], Awaitable[None]] | None = None
    ) -> ReclaimRecord:
        """One window on the cgroup `job.path` itself, which is about to be removed.

        With `rest`, which hears between two windows whether the last one gave anything: until it is removed.
        """
        account = _Account()
        try:
            await self._ending_windows(account, job, rest)
        except CgroupGone:
            account.failure = (Outcome.GONE, "the cgroup was removed meanwhile")
        except LedgerBusy as busy:
            account.decision = Wait(reason=str(busy), outside=True)
        except (KernelError, LedgerError, OSError) as error:
            account.failure = (Outcome.FAILED, str(error))
        return self._record(account, job, *_ending_verdict(account, vacated=job.vacated))

    async def _ending_windows(
        self, account: _Account, job: Job, rest: Callable[[bool], Awaitable[None]] | None
    ) -> None:
        if self.backend.mode is Mode.OBSERVE:
            account.decision = Skip(reason=self.backend.reason)
            return
        while True:
            if held := self.held():
                account.decision = Wait(reason=held, outside=True)
                return
            reading = await self._booked(account, job, self.backend.read_ending, job.path)
            if reading.residue.inode != job.teardowns[0].inode:
                raise CgroupGone(job.path)
            account.first = account.first or reading
            account.last = reading.residue
            account.decision = decision = policy.decide_ending(reading, self.config, vacated=job.vacated)
            gave = False
            if isinstance(decision, Reclaim):
                left_usec = job.max_usec - (now_usec() - account.started_usec)
                plan = replace(decision, window_usec=max(0, min(decision.window_usec, left_usec)))
                window = await self._booked(account, job, self._ending_window, job, reading.residue, plan)
                if window is None:
                    return
                account.windows.append(window)
                account.last = window.after
                gave = window.freed_bytes > 0
                if window.outcome is Outcome.GONE:
                    raise CgroupGone(job.path)
            if rest is None or job.should_stop() or now_usec() - account.started_usec >= job.max_usec:
                return
            await rest(gave)

    def _ending_window(self, job: Job, residue: Residue, plan: Reclaim) -> Window | None:
        """On the worker, where others may have had their turns since it was decided."""
        stop = self._stop(job)
        return None if stop() else self.backend.reclaim_ending(residue, plan, stop)

    def _record(self, account: _Account, job: Job, outcome: Outcome, reason: str) -> ReclaimRecord:
        windows, last = account.windows, account.last
        first = windows[0].before if windows else last
        ended_usec = now_usec()
        heard = [teardown.heard_usec for teardown in job.teardowns]
        return ReclaimRecord(
            id=uuid.uuid4().hex,
            realtime_usec=time.time_ns() // 1000,
            way=job.way,
            target=job.path,
            target_inode=last.inode if last else 0,
            outcome=outcome,
            reason=reason,
            mode=self.backend.mode,
            teardowns=job.teardowns,
            dying_before=first.dying if first else 0,
            dying_after=last.dying if last else 0,
            residue_before_bytes=first.file_bytes if first else 0,
            freed_bytes=sum(window.freed_bytes for window in windows),
            stolen_pages=sum(window.stolen_pages for window in windows),
            mapped_kept_bytes=last.mapped_bytes if last and outcome is Outcome.MAPPED_KEPT else 0,
            writes=sum(window.writes for window in windows),
            shielded=max((window.shielded for window in windows), default=0),
            cpu_usec=account.cpu_usec,
            wall_usec=ended_usec - account.started_usec,
            longest_write_usec=max((window.longest_write_usec for window in windows), default=0),
            release_usec=ended_usec - max(heard) if heard and job.way is Way.AFTER else None,
        )


async def _rest(account: _Account, job: Job) -> None:
    if job.rest is not None:
        await job.rest(account.cpu_usec - account.rested_cpu_usec)
        account.rested_cpu_usec = account.cpu_usec


def _last_word(account: _Account) -> Decision:
    """The decision that ended a job: Reclaim where only its time was over."""
    if account.decision is None:
        return Skip(reason="not read")
    last = account.windows[-1] if account.windows else None
    if isinstance(account.decision, Reclaim) and last is not None and not _goes_on(last):
        return Wait(
            reason=last.reason,
            keeps_mapped=last.outcome is Outcome.MAPPED_KEPT,
            outside=last.put_off,
            soon=last.put_off,
        )
    return account.decision


def _goes_on(window: Window) -> bool:
    """Whether another one is likely to give more at once."""
    return window.outcome is Outcome.PARTIAL and window.freed_bytes > 0 and not window.put_off


def _verdict(account: _Account) -> tuple[Outcome, str]:
    """The outcome of a job as a whole: its last window's, unless a decision ended it."""
    if account.failure:
        return account.failure
    decision, windows = account.decision, account.windows
    if windows and not isinstance(decision, Wait | Skip):
        last = windows[-1]
        unchanged = last.outcome is Outcome.UNCHANGED
        if unchanged and any(window.outcome is Outcome.PARTIAL for window in windows):
            return Outcome.PARTIAL, last.reason
        return last.outcome, last.reason
    reason = decision.reason if decision is not None else "not read"
    if account.last and account.first and policy.nothing_left(account.last, account.first):
        return Outcome.RELEASED, reason
    if isinstance(decision, Wait) and decision.keeps_mapped:
        return Outcome.MAPPED_KEPT, reason
    return (Outcome.PARTIAL if windows else Outcome.SKIPPED), reason


def _ending_verdict(account: _Account, *, vacated: bool) -> tuple[Outcome, str]:
    """The outcome for a cgroup itself: by what it still held when it was last looked at."""
    decision, last = account.decision, account.last
    freed = any(window.freed_bytes for window in account.windows)
    if account.failure and not (freed and account.failure[0] is Outcome.GONE):
        return account.failure
    if not account.windows or last is None:
        kept = isinstance(decision, Wait) and decision.keeps_mapped
        reason = decision.reason if decision is not None else "not read"
        return (Outcome.MAPPED_KEPT if kept else Outcome.SKIPPED), reason
    pending = last.dirty_bytes + last.writeback_bytes
    if not pending and last.file_bytes - last.shmem_bytes <= policy.NOISE_BYTES:
        return Outcome.RELEASED, "nothing to speak of is left in it"
    if vacated and isinstance(decision, Reclaim) and decision.keep_mapped:
        return Outcome.MAPPED_KEPT, "what is left is mapped by live processes"
    if pending:
        reason = "the rest waits for writeback"
    elif vacated:
        reason = "the kernel did not give up the rest in time"
    else:
        reason = "the rest is in use by its last processes"
    return (Outcome.PARTIAL if freed else Outcome.UNCHANGED), reason
