"""Reclaims that somebody asked for: begun at once, done in the sweep's turn, told when they are over.

A job goes on when the caller that began it leaves the bus, since `busctl call` does so right away.
What it holds is a place of its user's, until it ends.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from .demands import Demand
from .kernel.cgroupfs import KernelError
from .model import JobInfo, JobKind, JobState, Mode, Outcome, ReclaimRecord
from .sweep import Sweep

MAX_RUNNING = 16
MAX_RUNNING_OF_USER = 4  # but for root
KEPT = 64  # finished ones that stay listed

log = logging.getLogger(__name__)


class TooManyJobs(Exception):
    """The sentence says whose."""


@dataclass(slots=True)
class _Job:
    """A running one; records by the inode of their target, first and last."""

    info: JobInfo
    first: dict[int, ReclaimRecord] = field(default_factory=dict)
    last: dict[int, ReclaimRecord] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None

    def book(self, record: ReclaimRecord) -> None:
        self.first.setdefault(record.target_inode, record)
        self.last[record.target_inode] = record
        before = [each.dying_before for each in self.first.values()]
        after = [each.dying_after for each in self.last.values()]
        if record.mode is Mode.SHARED:  # each counts the whole hierarchy
            before, after = before[:1], [record.dying_after]
        self.info = replace(
            self.info,
            dying_before=sum(before),
            dying_after=sum(after),
            freed_bytes=self.info.freed_bytes + record.freed_bytes,
            stolen_pages=self.info.stolen_pages + record.stolen_pages,
        )

    def verdict(self) -> tuple[Outcome, str]:
        """Outcome and reason over all targets."""
        left = [each for each in self.last.values() if each.outcome not in (Outcome.RELEASED, Outcome.GONE)]
        if not left:
            return Outcome.RELEASED, "nothing dying is left here"
        outcomes = {each.outcome for each in left}
        if len(outcomes) == 1 and len(left) == len(self.last):
            return outcomes.pop(), left[-1].reason
        if self.info.freed_bytes or self.info.dying_after < self.info.dying_before:
            return Outcome.PARTIAL, left[-1].reason
        return (Outcome.FAILED if Outcome.FAILED in outcomes else Outcome.UNCHANGED), left[-1].reason


class Jobs:
    """Numbered from 1. `finished` hears of each end."""

    def __init__(self, sweep: Sweep, finished: Callable[[JobInfo], None]) -> None:
        self._sweep = sweep
        self._finished = finished
        self._running: dict[int, _Job] = {}
        self._ended: OrderedDict[int, JobInfo] = OrderedDict()
        self._last_id = 0

    def start(self, kind: JobKind, subject: str, uid: int, wants: Callable[[str], bool]) -> int:
        """The job's id; raises TooManyJobs. `wants` picks the live parents by path."""
        if len(self._running) >= MAX_RUNNING:
            raise TooManyJobs("Too many jobs run already: wait for one of them, or cancel it.")
        if uid and sum(job.info.uid == uid for job in self._running.values()) >= MAX_RUNNING_OF_USER:
            raise TooManyJobs("Too many jobs of this user run already: wait for one of them, or cancel it.")
        self._last_id += 1
        now_usec = time.time_ns() // 1000
        job = _Job(JobInfo(id=self._last_id, kind=kind, subject=subject, uid=uid, started_usec=now_usec))
        self._running[job.info.id] = job
        job.task = asyncio.create_task(self._run(job, wants), name=f"job {job.info.id}")
        job.task.add_done_callback(lambda task: self._end(job, task))
        return job.info.id

    def get(self, job: int) -> JobInfo | None:
        if job in self._running:
            return self._running[job].info
        return self._ended.get(job)

    def list(self) -> list[JobInfo]:
        """The last that finished, then the running ones; one that has to wait says what for."""
        running = [replace(job.info, reason=self._sweep.paused) for job in self._running.values()]
        return [*self._ended.values(), *running]

    def cancel(self, job: int) -> bool:
        """Ends it after its current write; false where it does not run."""
        running = self._running.get(job)
        return running is not None and running.task is not None and running.task.cancel()

    def stop(self) -> None:
        for job in list(self._running):
            self.cancel(job)

    async def _run(self, job: _Job, wants: Callable[[str], bool]) -> None:
        await self._sweep.demand(Demand(wants=wants, book=job.book))

    def _end(self, job: _Job, task: asyncio.Task[None]) -> None:
        outcome: Outcome | None
        outcome, reason = job.verdict()
        state = JobState.FAILED if outcome is Outcome.FAILED else JobState.DONE
        if task.cancelled():
            state, outcome, reason = JobState.CANCELED, None, "canceled"
        elif (error := task.exception()) is not None:
            state, outcome, reason = JobState.FAILED, Outcome.FAILED, str(error)
            if not isinstance(error, KernelError | OSError):
                log.error("Job %d failed.", job.info.id, exc_info=error)
        info = replace(
            job.info, state=state, outcome=outcome, reason=reason, finished_usec=time.time_ns() // 1000
        )
        del self._running[info.id]
        self._ended[info.id] = info
        while len(self._ended) > KEPT:
            self._ended.popitem(last=False)
        self._finished(info)
