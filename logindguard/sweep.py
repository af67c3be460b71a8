"""The periodic pass over what is left, retries of what a teardown could not free, and what is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from . import policy
from .climb import Climb
from .demands import Demand, Demands
from .kernel.cgroupfs import KernelError
from .kernel.pressure import read_signs
from .model import Decision, Mode, Outcome, Reclaim, ReclaimRecord, Residue, Wait, Way
from .pace import SEC, Pace
from .reclaimer import Job, Reclaimer, Spent, now_usec
from .room import Room
from .standings import Standing

T = TypeVar("T")
PRESSURE_POLL_SEC = 10.0
QUIET_USEC, QUIET_MOST_SEC = 1_000_000, 10.0
JOB_USEC = 10_000_000  # on one parent at a time; others' retries wait

log = logging.getLogger(__name__)


class Sweep:
    """Runs at idle priority, within its CPU share, when the host has room and no teardown waits."""

    def __init__(
        self,
        reclaimer: Reclaimer,
        *,
        tell: Callable[[ReclaimRecord], None],
        tell_paused: Callable[[str], None],
        tell_forecast: Callable[[int, int], None],
        free: asyncio.Event,
        rescan: Callable[[], Awaitable[None]],
        climb: Climb | None = None,
        held: Callable[[], str] = lambda: "",
    ) -> None:
        self._reclaimer = reclaimer
        self._tell = tell
        self._tell_paused = tell_paused
        self._tell_forecast = tell_forecast
        self._rescan = rescan  # of the cgroup tree, where teardowns may have gone untold
        self._free = free  # cleared while a teardown is served
        self._climb = climb or Climb(reclaimer)
        self._held = held  # why no sweep may go on, beside what the host says; empty where it may
        self._standings = self._climb.standings
        self._demands = Demands()
        self._room = Room()
        self._slow: set[int] = set()  # inodes of targets of which a write over the share was told
        self._wake = asyncio.Event()
        self._stopping = False
        self._ramp_since_usec: int | None = None
        self._pass_due = True
        self._pace = Pace()
        self._broke = ""  # the last reason why a pass broke off, so that it is told once
        self.paused = ""  # the reason, empty while it goes on
        self.dying = 0  # as the last pass counted them
        self.last_realtime_usec = 0  # when the last pass began; 0: none yet
        self.last_took_usec = 0

    def stop(self) -> None:
        self._stopping = True

    def leave(self, record: ReclaimRecord, decision: Decision) -> None:
        """Come back to what a teardown left behind; a new teardown makes an old residue worth a fresh try."""
        if self._climb.leave(record, decision):
            self._wake.set()

    async def run(self) -> None:
        """Sweep until cancelled."""
        await self._enabled()
        await self._first_grace()
        passed_usec = 0
        while True:
            await self._enabled()
            interval_usec = self._reclaimer.config.sweep.interval_usec
            if self._pass_due or now_usec() >= passed_usec + interval_usec:
                self._pass_due = False
                began_usec, self.last_realtime_usec = now_usec(), time.time_ns() // 1000
                await self._guarded(self._pass())
                passed_usec = now_usec()
                self.last_took_usec = passed_usec - began_usec
            await self._between()
            if self.paused:  # by a look while the idle worker was at something: until it goes on
                await self._has_room(asked=False)
                continue
            pass_usec = passed_usec + interval_usec
            due_usec = min(self._standings.next_usec(pass_usec), pass_usec)
            await self._woken((due_usec - now_usec()) / 1e6)

    async def _woken(self, timeout_sec: float | None) -> None:
        """Return after a time, or before it when there may be something to do."""
        with contextlib.suppress(TimeoutError):
            # Not wait_for: in Python 3.11 it can swallow a cancellation that comes with the wake-up.
            async with asyncio.timeout(timeout_sec if timeout_sec is None else max(0.0, timeout_sec)):
                await self._wake.wait()
        self._wake.clear()

    async def _enabled(self) -> None:
        """Returns when the settings have it on; what is asked for is done all the same."""
        while not self._reclaimer.config.sweep.enabled:
            await self._woken(PRESSURE_POLL_SEC if self.paused else None)
            await self._demands.serve(self._serve)
            if self.paused:
                self._waits(asked=False)

    def wake(self) -> None:
        """Look anew at when to do what, for settings that have changed."""
        self._wake.set()

    def again(self) -> None:
        """Begin a pass as soon as what is going on has ended: there may be more to do than was thought."""
        self._pass_due = True
        self._wake.set()

    def standing(self, inode: int) -> Standing:
        """Where a residue stands."""
        return self._standings.get(inode)

    async def demand(self, demand: Demand) -> None:
        """Try now, whatever its back-off, what `demand` wants; returns when it was done.

        Within the sweep's share and pauses. Raises KernelError or OSError; cancel it to stop.
        """
        self._wake.set()
        await self._demands.wait_for(demand)

    async def _serve(self, demand: Demand) -> None:
        residues = await self._ask(self._reclaimer.backend.residues)
        for residue in policy.deepest_first([each for each in residues if demand.wants(each.path)]):
            going = True
            while going and not demand.canceled:
                record = await self._try(residue.path, residue.inode, demand)
                demand.book(record)
                going = record.outcome is Outcome.PARTIAL and record.freed_bytes > 0
                if not self.paused:
                    await self._retry_due()

    async def _between(self) -> None:
        """What does not wait for the end of a pass."""
        await self._demands.serve(self._serve)
        await self._retry_due()

    async def _retry_due(self) -> None:
        if not self._reclaimer.config.sweep.enabled:
            return
        for inode, path in self._standings.due(now_usec()):
            await self._guarded(self._try(path, inode))

    async def _guarded(self, work: Awaitable[object]) -> None:
        """A kernel file that cannot be read ends this pass, not the sweep."""
        try:
            await work
        except (KernelError, OSError) as error:
            again = str(error) == self._broke
            self._broke = str(error)
            log.log(logging.DEBUG if again else logging.WARNING, "The sweep broke off: %s.", error)

    async def _first_grace(self) -> None:
        """After a start into a host that is full of dying memcgs: say so, wait, begin slowly."""
        settings = self._reclaimer.config.sweep
        try:
            self.dying = await self._looking_on(
                self._reclaimer.call(self._reclaimer.backend.total_dying, idle=True)
            )
        except (KernelError, OSError) as error:
            log.warning("Dying memcgs cannot be counted: %s.", error)
            return
        if self._reclaimer.backend.mode is not Mode.OBSERVE and self.dying > settings.grace_dying:
            self._tell_forecast(self.dying, policy.forecast_usec(self.dying, settings.cpu_percent))
            until_usec = now_usec() + settings.grace_usec
            while (left_usec := until_usec - now_usec()) > 0:
                left_sec = left_usec / 1e6
                await self._woken(min(left_sec, PRESSURE_POLL_SEC) if self.paused else left_sec)
                await self._demands.serve(self._serve)
                if self.paused:
                    self._waits(asked=False)
            self._ramp_since_usec = now_usec()

    async def _pass(self) -> None:
        backend = self._reclaimer.backend
        await self._rescan()
        known = self._standings.inodes()  # what is left meanwhile is newer than what this pass counts
        self.dying = await self._ask(backend.total_dying)
        residues: list[Residue] = []
        if self.dying and backend.mode is not Mode.OBSERVE:  # a host without any costs that one reading
            await self._climb.read_clocks()
            residues = policy.deepest_first(await self._ask(backend.residues))
        found = {residue.inode for residue in residues}
        self._standings.keep(found, of=known)
        self._slow &= found
        for residue in residues:
            if not self._reclaimer.config.sweep.enabled:
                self._pass_due = True  # once it is on again
                return
            if self._standings.get(residue.inode).stand.next_usec <= now_usec():
                await self._guarded(self._try(residue.path, residue.inode))
            await self._between()

    async def _ask(self, question: Callable[[], T]) -> T:
        """What the idle worker finds, and then the rest that it costs."""
        spent = Spent()
        answer = await self._looking_on(self._reclaimer.call(question, idle=True, spent=spent))
        await self._rest(spent.cpu_usec)
        return answer

    async def _looking_on(self, work: Coroutine[Any, Any, T]) -> T:
        """Where all CPUs are taken, the idle worker may be at it for minutes: that is told as a pause."""
        task = asyncio.create_task(work)
        try:
            while not (await asyncio.wait([task], timeout=PRESSURE_POLL_SEC))[0]:
                self._waits(asked=False)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
        return task.result()

    async def _try(self, path: str, inode: int, demand: Demand | None = None) -> ReclaimRecord:
        await self._has_room(asked=demand is not None)
        if demand is None:
            await self._quiet()
        old = self._standings.pop(inode)  # whatever comes now, it is not due again at once
        rested_usec = 0

        async def rest(cpu_usec: int) -> None:
            nonlocal rested_usec
            rested_usec += cpu_usec
            await self._rest(cpu_usec)

        job = Job(
            way=Way.SWEEP,
            path=path,
            shape=lambda decision: self._shaped(path, inode, decision),
            should_stop=lambda: self._should_stop(demand),
            max_usec=JOB_USEC,
            rest=rest,
            prompt=self._room.crowded,
        )
        record, decision = await self._looking_on(self._reclaimer.run(job))
        if demand is not None and demand.canceled:  # not to go on at once all the same
            decision = Wait(reason=record.reason, outside=True)
        record, new = await self._looking_on(self._climb.after_try(record, decision, old))
        gave = record.freed_bytes or record.dying_after < record.dying_before
        if gave or new or record.outcome is Outcome.FAILED:
            self._tell(record)
        elif old.reason != record.reason:
            log.debug("%s: %d dying memcgs stay: %s.", path, record.dying_after, record.reason)
        await self._rest(record.cpu_usec - rested_usec)
        return record

    def _should_stop(self, demand: Demand | None) -> bool:
        """Whether a window is to end after its current write; asked on the workers."""
        enabled = self._reclaimer.config.sweep.enabled if demand is None else not demand.canceled
        waits = demand is None and bool(self.paused)
        return self._stopping or not enabled or waits or not self._free.is_set()

    def _shaped(self, path: str, inode: int, decision: Reclaim) -> Reclaim:
        """Within the share; where a single write is over it, that is told, and rested for afterwards."""
        share_usec = int(self._share_percent() * SEC / 100)
        if decision.predicted_write_usec > share_usec and inode not in self._slow:
            self._slow.add(inode)
            log.info(
                "One write to %s is predicted to take %d ms, and the sweep has %d ms of a second: "
                "it rests for longer after each.",
                path,
                decision.predicted_write_usec // 1000,
                share_usec // 1000,
            )
        return policy.for_sweep(decision, self._share_percent())

    def _share_percent(self) -> float:
        settings = self._reclaimer.config.sweep
        if self._ramp_since_usec is None:
            return settings.cpu_percent
        since_usec = now_usec() - self._ramp_since_usec
        return policy.ramp_percent(settings.cpu_percent, since_usec, settings.grace_usec)

    async def _rest(self, cpu_usec: int) -> None:
        """Sleep off the CPU time used, then give way to teardowns."""
        await asyncio.sleep(self._pace.rest_usec(cpu_usec, self._share_percent(), now_usec()) / 1e6)
        await self._free.wait()

    async def _has_room(self, *, asked: bool) -> None:
        """Return when the host has room for a sweep; who asks for one is served while others wait."""
        while reason := self._waits(asked=asked):
            log.debug("The sweep waits: %s.", reason)
            await self._woken(PRESSURE_POLL_SEC)
            if not asked:
                await self._demands.serve(self._serve)

    async def _quiet(self) -> None:
        """Give way, for a while, where cgroups come and go: one born amid a write has no shield yet."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(QUIET_MOST_SEC):
                while (left_usec := self._climb.removed_usec() + QUIET_USEC - now_usec()) > 0:  # noqa: ASYNC110  # no event
                    await asyncio.sleep(left_usec / 1e6)

    def _waits(self, *, asked: bool) -> str:
        """Why a sweep has to wait now, empty where it may go on; tells what holds up those of its own."""
        config = self._reclaimer.config
        self._room.look(read_signs(), config.pressure, config.reclaim.min_headroom_bytes, now_usec())
        paused = self._reclaimer.held() or self._room.reason(asked=False) or self._held()
        changed = bool(paused) != bool(self.paused)
        self.paused = paused
        if changed:
            self._tell_paused(paused)
        # Who asks for one knows what was read again before.
        return (self._reclaimer.held() or self._room.reason(asked=True)) if asked else paused
