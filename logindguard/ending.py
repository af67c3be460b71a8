"""Reclaim before the rmdir: for a stop job while it works, for a hook in the moment before it."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from .model import ReclaimRecord, Teardown, Way
from .reclaimer import Job, Reclaimer, now_usec

MAX_JOBS = 64  # stop jobs at once; beyond, the way after the rmdir is soon enough
JOB_USEC = 100_000_000  # a stop job gives up after 90 s (DefaultTimeoutStopSec=)
FIRST_PAUSE_SEC, LAST_PAUSE_SEC = 0.02, 0.5
MAX_SERVED = 1_024  # cgroups to remember until their removal is heard of

log = logging.getLogger(__name__)


class Busy(Exception):
    """The prompt worker is in the kernel, and a logout shall not wait for that."""


class Endings:
    """Serves cgroups that are about to go. `tell` gets the records, `note_busy` hears of each change.

    No write is begun for a stop job once `lives_on` says that its cgroup is not about to go any more.
    """

    def __init__(
        self,
        reclaimer: Reclaimer,
        *,
        tell: Callable[[ReclaimRecord], None],
        note_busy: Callable[[], None],
        lives_on: Callable[[Teardown], bool],
    ) -> None:
        self._reclaimer = reclaimer
        self._tell = tell
        self._note_busy = note_busy
        self._lives_on = lives_on
        self._emptied: set[int] = set()  # inodes that a stop job is being served for
        self._tasks: set[asyncio.Task[ReclaimRecord]] = set()
        self._resting = 0  # of the tasks
        self._stopping = False
        self._served: OrderedDict[int, None] = OrderedDict()  # inodes that gave something, oldest first

    @property
    def busy(self) -> bool:
        return len(self._tasks) > self._resting

    def served(self, inode: int) -> bool:
        """Whether the cgroup gave its page cache, or some, before it was removed."""
        return inode in self._served

    def stop(self) -> None:
        """Let the windows that are open end after their current write, and begin no other."""
        self._stopping = True

    def cancel(self) -> None:
        """No longer wait for that; what such a window gives is not told any more."""
        for task in self._tasks:
            task.cancel()

    def serve_stop_job(self, teardown: Teardown) -> None:
        """Reclaim what no process of the cgroup maps, again and again until it or the job is gone."""
        inode = teardown.inode
        if len(self._tasks) >= MAX_JOBS or inode in self._emptied:
            return
        pause_sec = FIRST_PAUSE_SEC

        async def rest(gave: bool) -> None:
            nonlocal pause_sec
            pause_sec = FIRST_PAUSE_SEC if gave else min(2 * pause_sec, LAST_PAUSE_SEC)
            self._rests(+1)
            try:
                await asyncio.sleep(pause_sec)
            finally:
                self._rests(-1)

        job = Job(
            way=Way.BEFORE,
            path=teardown.path,
            teardowns=(teardown,),
            should_stop=lambda: self._stopping or self._lives_on(teardown),
            max_usec=JOB_USEC,
        )
        self._emptied.add(inode)
        self._start(job, rest).add_done_callback(lambda _: self._emptied.discard(inode))

    async def serve_hook(self, teardown: Teardown, deadline_usec: int) -> ReclaimRecord:
        """Reclaim a cgroup whose processes are gone, at once or not at all. Raises Busy.

        A caller that does not wait for the end makes it end after the current write.
        """
        if self._reclaimer.prompt_is_busy:
            raise Busy
        given_up = False
        job = Job(
            way=Way.BEFORE,
            path=teardown.path,
            teardowns=(teardown,),
            should_stop=lambda: self._stopping or given_up,
            vacated=True,
            max_usec=max(0, deadline_usec - now_usec()),
        )
        task = self._start(job, None)
        try:
            return await asyncio.shield(task)
        finally:
            given_up = True

    def _start(self, job: Job, rest: Callable[[bool], Awaitable[None]] | None) -> asyncio.Task[ReclaimRecord]:
        task = asyncio.create_task(self._reclaimer.run_ending(job, rest=rest))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        self._note_busy()
        return task

    def _rests(self, change: int) -> None:
        self._resting += change
        self._note_busy()

    def _ended(self, task: asyncio.Task[ReclaimRecord]) -> None:
        self._tasks.discard(task)
        self._note_busy()
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            log.error("A reclaim before the removal failed.", exc_info=error)
            return
        record = task.result()
        if record.freed_bytes:  # else the way after the rmdir tells of it
            self._served[record.target_inode] = None
            while len(self._served) > MAX_SERVED:
                self._served.popitem(last=False)
            self._tell(record)
