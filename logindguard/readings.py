"""What hangs dying where, for those that ask: one reading for all of them, within a share of one CPU.

memory.stat of a host that is full of dying memcgs takes up to a second and holds up whoever removes
the cgroup, and anybody may ask. So a reading is shared, is not begun again before it is old enough,
and leaves the bytes of the smallest residues out when time is up.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Executor
from dataclasses import dataclass

from .kernel.backend import Backend
from .kernel.cgroupfs import CgroupGone, KernelError
from .kernel.idle import thread_cpu_usec
from .model import Residue
from .reclaimer import now_usec

SHARE = 50  # of one CPU: a fiftieth
MIN_AGE_USEC = 1_000_000
BUDGET_USEC = 1_000_000  # CPU time of one reading
MAX_ROWS = 1_000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Residues, those with most dying memcgs first; `unread` are the inodes of those without bytes."""

    residues: tuple[Residue, ...] = ()
    unread: frozenset[int] = frozenset()
    dying: int = 0  # all of them
    taken_usec: int = 0  # 0: not yet

    @property
    def file_bytes(self) -> int:
        return sum(residue.file_bytes for residue in self.residues)


class Readings:
    """The latest reading, taken anew by who asks for it."""

    def __init__(self, backend: Backend, executor: Executor) -> None:
        self._backend = backend
        self._executor = executor
        self._not_before_usec = 0
        self._task: asyncio.Task[None] | None = None
        self.latest = Snapshot()

    async def fresh(self) -> Snapshot:
        """As new as the share allows. Raises KernelError or OSError."""
        task = self._begin()
        if task is not None:
            await asyncio.shield(task)
        return self.latest

    def nudge(self) -> Snapshot:
        """The latest one at once; a newer one is begun where it is time for that."""
        self._begin()
        return self.latest

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _begin(self) -> asyncio.Task[None] | None:
        if self._task is None and now_usec() >= self._not_before_usec:
            self._task = asyncio.create_task(self._read(), name="readings")
            self._task.add_done_callback(self._ended)
        return self._task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("Residues cannot be read: %s.", error)

    async def _read(self) -> None:
        cpu_usec = 0
        try:
            self.latest, cpu_usec = await asyncio.get_running_loop().run_in_executor(
                self._executor, _take, self._backend
            )
        finally:
            self._not_before_usec = now_usec() + max(MIN_AGE_USEC, SHARE * cpu_usec)


def _take(backend: Backend) -> tuple[Snapshot, int]:
    begin_usec = thread_cpu_usec()
    dying = backend.total_dying()
    residues: list[Residue] = []
    unread: set[int] = set()
    found = backend.residues() if dying else []
    for residue in sorted(found, key=lambda each: -each.dying)[:MAX_ROWS]:
        if thread_cpu_usec() - begin_usec >= BUDGET_USEC:
            residues.append(residue)
            unread.add(residue.inode)
            continue
        try:
            residues.append(backend.read(residue.path).residue)
        except CgroupGone:
            continue
        except KernelError:  # one that has no memory.stat to read: it is there all the same
            residues.append(residue)
            unread.add(residue.inode)
    snapshot = Snapshot(
        residues=tuple(residues), unread=frozenset(unread), dying=dying, taken_usec=now_usec()
    )
    return snapshot, thread_cpu_usec() - begin_usec
