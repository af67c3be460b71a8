"""The pipeline: teardown heard -> settled -> decided -> reclaimed -> recorded -> told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace

from .kernel.cgroupfs import CgroupGone, KernelError
from .model import Decision, Outcome, Phase, ReclaimRecord, Teardown, Way
from .reclaimer import Job, Reclaimer, now_usec
from .settle import Settler

MAX_WAITING = 10_000  # teardowns; beyond, they are left to the sweep
SERVE_USEC = 2_000_000  # for one parent; what is left then is the sweep's, others wait too
MAX_ENDING = 8  # stop jobs at once; beyond, the way after the rmdir is soon enough

log = logging.getLogger(__name__)


class Guard:
    """Turns teardowns into reclaims. `tell` gets each record, `leave` what the sweep shall come back to."""

    def __init__(
        self,
        reclaimer: Reclaimer,
        *,
        tell: Callable[[ReclaimRecord], None],
        leave: Callable[[ReclaimRecord, Decision], None],
    ) -> None:
        self._reclaimer = reclaimer
        self._tell = tell
        self._leave = leave
        self._settler = Settler()
        self._wake = asyncio.Event()
        self._ending: set[asyncio.Task[None]] = set()
        self._reclaiming = False
        self._stopping = False
        self.free = asyncio.Event()  # set while nothing is served; a sweep waits for it
        self.free.set()
        self.teardowns_total = 0
        self.shed_total = 0

    def heard(self, teardown: Teardown) -> None:
        """Take one teardown in; called on the event loop by whoever heard of it."""
        if teardown.phase is Phase.ENDING:
            if len(self._ending) < MAX_ENDING:
                task = asyncio.create_task(self._before(teardown))
                self._ending.add(task)
                task.add_done_callback(self._ended)
                self._note_busy()
            return
        self.teardowns_total += 1
        if len(self._settler) >= MAX_WAITING:
            if self.shed_total == 0:
                log.warning(
                    "More than %d teardowns wait at once; the sweep will see to the rest.", MAX_WAITING
                )
            self.shed_total += 1
            return
        self._settler.add(teardown, now_usec())
        self._wake.set()

    async def run(self) -> None:
        """Serve settled groups until cancelled."""
        while True:
            due_usec = self._settler.next_usec(self._reclaimer.config.teardown)
            wait_sec = None if due_usec is None else max(0, due_usec - now_usec()) / 1e6
            with contextlib.suppress(TimeoutError):
                # Not wait_for: in Python 3.11 it can swallow a cancellation that comes with the wake-up.
                async with asyncio.timeout(wait_sec):
                    await self._wake.wait()
            self._wake.clear()
            groups = self._settler.due(self._reclaimer.config.teardown, now_usec())
            if groups:
                self._reclaiming = True
                self._note_busy()
                try:
                    await self._serve(groups)
                finally:
                    self._reclaiming = False
                    self._note_busy()

    def stop(self) -> None:
        """Let the window that is open end after its current write."""
        self._stopping = True
        for task in self._ending:
            task.cancel()

    def _note_busy(self) -> None:
        if self._reclaiming or self._ending:
            self.free.clear()
        else:
            self.free.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._ending.discard(task)
        self._note_busy()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("A reclaim before the removal failed.", exc_info=error)

    async def _serve(self, groups: list[tuple[str, tuple[Teardown, ...]]]) -> None:
        """Reclaim once for each parent that still lives; what hung under a gone one hangs higher up now."""
        merged: dict[str, tuple[Teardown, ...]] = {}
        for path, teardowns in groups:
            live = await self._nearest_live(path)
            if live is not None:
                merged[live] = merged.get(live, ()) + teardowns
        for path in sorted(merged, key=lambda path: -path.count("/")):
            job = Job(
                way=Way.AFTER,
                path=path,
                teardowns=merged[path],
                should_stop=lambda: self._stopping,
                max_usec=SERVE_USEC,
            )
            record, decision = await self._reclaimer.run(job)
            while record.outcome is Outcome.GONE:
                if record.writes:
                    self._tell(replace(record, teardowns=()))
                live = await self._nearest_live(path)
                if live is None:
                    break
                job = replace(job, path=live)  # what hung under it hangs there now
                record, decision = await self._reclaimer.run(job)
            else:
                self._tell(record)
                self._leave(record, decision)

    async def _nearest_live(self, path: str) -> str | None:
        """Where the residue of `path` hangs now; None where that is none of ours."""
        try:
            return await self._reclaimer.call(self._reclaimer.backend.nearest_live, path)
        except CgroupGone:
            return None
        except KernelError as error:
            log.warning("%s is left to the sweep: %s.", path, error)
            return None

    async def _before(self, teardown: Teardown) -> None:
        job = Job(
            way=Way.BEFORE, path=teardown.path, teardowns=(teardown,), should_stop=lambda: self._stopping
        )
        record = await self._reclaimer.run_ending(job)
        if record.writes:  # else the way after the rmdir tells of it
            self._tell(record)
