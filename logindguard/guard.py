"""The pipeline: teardown heard -> settled -> decided -> reclaimed -> recorded -> told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from .ending import Endings
from .kernel.cgroupfs import CgroupGone, KernelError
from .model import UNNAMED, Decision, Mode, Outcome, Phase, ReclaimRecord, Teardown, Way
from .reclaimer import Job, Reclaimer, now_usec
from .settle import Settler
from .turns import Turns, owner

MAX_WAITING = 10_000  # teardowns; beyond, they are left to the sweep. Half of them for one user
# Users make cgroups by the thousand below their own managers: what is told of them must not fill our memory.
MAX_NAMED = 250  # teardowns in one record
ROUND_USEC = 2_000_000  # then a sweep may take its turn
SERVE_USEC = 2_000_000  # for one parent; what is left then is the sweep's, others wait too

log = logging.getLogger(__name__)


class Guard:
    """Turns teardowns into reclaims. `tell` gets each record, `leave` what the sweep shall come back to.

    `lives_on` says whether the stop job of a teardown has ended and its cgroup has not; from any thread.
    """

    def __init__(
        self,
        reclaimer: Reclaimer,
        *,
        tell: Callable[[ReclaimRecord], None],
        leave: Callable[[ReclaimRecord, Decision], None],
        lives_on: Callable[[Teardown], bool] = lambda teardown: False,
    ) -> None:
        self._reclaimer = reclaimer
        self._tell = tell
        self._leave = leave
        self._settler = Settler()
        self._turns = Turns()
        self._waiting: dict[str, tuple[Teardown, ...]] = {}  # settled, by live parent
        self._taken: Counter[str] = Counter()  # teardowns that settle or wait, by owner
        self._wake = asyncio.Event()
        self.endings = Endings(reclaimer, tell=tell, note_busy=self._note_busy, lives_on=lives_on)
        self._reclaiming = False
        self._stopping = False
        self.free = asyncio.Event()  # set while nothing is served; a sweep waits for it
        self.free.set()
        self.teardowns_total = 0
        self.heard_usec = 0  # when a cgroup was last heard to be removed
        self.shed_total = 0

    @property
    def waiting_count(self) -> int:
        """Teardowns that settle or wait for their turn."""
        return self._taken.total()

    def heard(self, teardown: Teardown) -> None:
        """Take one teardown in; called on the event loop by whoever heard of it."""
        if teardown.phase is Phase.ENDING:
            self.endings.serve_stop_job(teardown)
            return
        self.teardowns_total += 1
        self.heard_usec = now_usec()
        if not self._reclaimer.config.teardown.after:
            return
        user = owner(teardown.path)
        if self.waiting_count >= MAX_WAITING or (user and self._taken[user] >= MAX_WAITING // 2):
            if self.shed_total == 0:
                log.warning(
                    "%d teardowns wait at once; the sweep will see to those that come on top.",
                    self.waiting_count,
                )
            self.shed_total += 1
            return
        self._taken[user] += 1
        self._settler.add(teardown, now_usec())
        self._wake.set()

    async def run(self) -> None:
        """Serve settled groups until cancelled, or stopped."""
        waiting = self._waiting
        while True:
            due_usec = now_usec() if waiting else self._settler.next_usec(self._reclaimer.config.teardown)
            wait_sec = None if due_usec is None else max(0, due_usec - now_usec()) / 1e6
            with contextlib.suppress(TimeoutError):
                # Not wait_for: in Python 3.11 it can swallow a cancellation that comes with the wake-up.
                async with asyncio.timeout(wait_sec):
                    await self._wake.wait()
            self._wake.clear()
            await self._gather()
            if waiting:
                until_usec = now_usec() + ROUND_USEC
                self._reclaiming = True
                self._note_busy()
                try:
                    while waiting and not self._stopping and now_usec() < until_usec:
                        path = self._turns.next(waiting)
                        teardowns = waiting.pop(path)
                        self._let_go(teardowns)
                        await self._serve(path, teardowns)
                        await self._gather()
                finally:
                    self._reclaiming = False
                    self._note_busy()
            if self._stopping:
                return

    def stop(self) -> None:
        """Let the windows that are open end after their current write; `free` is set once they are told."""
        self._stopping = True
        self.endings.stop()

    def _note_busy(self) -> None:
        if self._reclaiming or self.endings.busy:
            self.free.clear()
        else:
            self.free.set()

    async def _gather(self) -> None:
        """Takes settled groups in by the parent that still lives: what hung under a gone one hangs there."""
        for path, teardowns in self._settler.due(self._reclaimer.config.teardown, now_usec()):
            live = await self._nearest_live(path)
            if live is None:
                self._let_go(teardowns)
            else:
                self._waiting[live] = self._waiting.get(live, ()) + teardowns

    def _let_go(self, teardowns: tuple[Teardown, ...]) -> None:
        self._taken -= Counter(owner(teardown.path) for teardown in teardowns)

    async def _serve(self, path: str, teardowns: tuple[Teardown, ...]) -> None:
        """Reclaim once for one parent."""
        job = Job(
            way=Way.AFTER,
            path=path,
            teardowns=teardowns[-MAX_NAMED:],
            should_stop=lambda: self._stopping,
            max_usec=SERVE_USEC,
        )
        record, decision = await self._reclaimer.run(job)
        while record.outcome is Outcome.GONE:
            if record.writes:
                self._tell(replace(record, teardowns=()))
            live = await self._nearest_live(path)
            if live is None:
                return
            job = replace(job, path=live)  # what hung under it hangs there now
            record, decision = await self._reclaimer.run(job)
        if (unnamed := len(teardowns) - MAX_NAMED) > 0:
            record = replace(record, context={**record.context, UNNAMED: str(unnamed)})
        if not self._told_before(record):
            self._tell(record)
        self._leave(record, decision)

    def _told_before(self, record: ReclaimRecord) -> bool:
        """Whether nothing was left to do here, and the records from before the rmdirs say why."""
        nothing_done = not record.writes and record.outcome is not Outcome.FAILED
        # Where live cgroups cannot be shielded, dying ones are counted for the whole machine.
        nothing_left = record.dying_after == 0 or record.mode is Mode.SHARED
        return nothing_done and nothing_left and all(self.endings.served(t.inode) for t in record.teardowns)

    async def _nearest_live(self, path: str) -> str | None:
        """Where the residue of `path` hangs now; None where that is none of ours."""
        try:
            return await self._reclaimer.call(self._reclaimer.backend.nearest_live, path)
        except CgroupGone:
            return None
        except KernelError as error:
            log.warning("%s is left to the sweep: %s.", path, error)
            return None
