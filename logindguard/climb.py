"""Takes residues up the ladder: remembers where each stands, nudges the kernel, says what holds the rest."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import replace

from . import ladder
from .kernel.cgroupfs import PERMANENT, KernelError
from .kernel.features import version_of
from .kernel.pins import KERNEL_MEMORY_LETS_GO
from .kernel.writeback import read_clocks
from .ladder import Rung
from .model import Decision, Mode, Outcome, ReclaimRecord
from .reclaimer import Reclaimer, now_usec
from .standings import Standing, Standings
from .verdict import Verdict, verdict

ENDED = frozenset({Outcome.RELEASED, Outcome.GONE})

log = logging.getLogger(__name__)


class Climb:
    """`nudge` is kernel.nudge.Nudge; `offline_usec` tells when a cgroup was last heard to be removed."""

    def __init__(
        self,
        reclaimer: Reclaimer,
        *,
        nudge: Callable[[], bool] = lambda: False,
        offline_usec: Callable[[], int] = lambda: 0,
    ) -> None:
        self._reclaimer = reclaimer
        self._nudge = nudge
        self.removed_usec = offline_usec
        self._nudged_usec = 0
        self._clocks = read_clocks()
        self._kernel_memory_holds = version_of(os.uname().release) < KERNEL_MEMORY_LETS_GO
        self.standings = Standings()

    async def read_clocks(self) -> None:
        """They may be changed at any time. On a thread: a host of containers has thousands of mounts."""
        self._clocks = await asyncio.to_thread(read_clocks)

    def leave(self, record: ReclaimRecord, decision: Decision) -> bool:
        """Whether a teardown left something; it makes an old residue worth a fresh try."""
        old = self.standings.pop(record.target_inode)
        if record.outcome in ENDED:
            return False
        self._stand(record, decision, Standing(told=old.told))
        return True

    async def after_try(
        self, record: ReclaimRecord, decision: Decision, old: Standing
    ) -> tuple[ReclaimRecord, bool]:
        """What is to be done now; the record, with the verdict where it is due, and whether that is new."""
        if record.outcome in ENDED:
            return record, False
        newer = self.standings.get(record.target_inode)
        if newer.path:  # a teardown was served amid the try, and made it worth a fresh one
            old = replace(newer, told=old.told)
        standing = self._stand(record, decision, old)
        if standing.stand.rung is Rung.NUDGE:
            await self._nudge_once()
        if not ladder.judged(standing.stand, record.outcome, decision):
            return record, False
        found = await self._verdict(record.target)
        if found is None:
            return record, False
        record = replace(record, reason=found.text)
        named = {*found.kinds, *([] if found.kinds and not found.unknown else ["unknown"])}
        told = old.told | named
        self.standings.put(record.target_inode, replace(standing, reason=record.reason, told=told))
        return record, told != old.told

    def _stand(self, record: ReclaimRecord, decision: Decision, old: Standing) -> Standing:
        # cgroup v1 counts those of the whole machine: that there are less says nothing of this one.
        counted = record.mode is Mode.PRECISE
        stand = ladder.after_try(
            old.stand,
            record.outcome,
            decision,
            self._clocks,
            self._reclaimer.config.sweep,
            now_usec(),
            progress=counted and record.dying_after < old.dying,
        )
        standing = Standing(
            path=record.target, stand=stand, reason=record.reason, dying=record.dying_after, told=old.told
        )
        self.standings.put(record.target_inode, standing)
        return standing

    async def _nudge_once(self) -> None:
        """For all residues that wait for it, and not where another removal has just done the same.

        Never at idle priority: it takes cgroup_mutex, for which every cgroup operation would wait.
        """
        if now_usec() - max(self._nudged_usec, self.removed_usec()) >= ladder.NUDGE_USEC:
            self._nudged_usec = now_usec()
            if await self._reclaimer.call(self._nudge):
                log.debug("The kernel was nudged to let go of writeback structures.")

    async def _verdict(self, path: str) -> Verdict | None:
        """What holds the rest; None where that cannot be read.

        These readings are not in the sweep's share: what waits behind them would wait for their rest too.
        """
        try:
            found = await self._reclaimer.call(self._reclaimer.backend.explain, path, idle=path in PERMANENT)
        except (KernelError, OSError) as error:
            log.debug("What holds dying memcgs under %s cannot be read: %s.", path, error)
            return None
        return verdict(
            found,
            kernel_memory_holds=self._kernel_memory_holds,
            flusher_off=self._clocks.writeback_usec == 0,
        )
