"""Writes to memory.reclaim, in pieces that each keep the kernel about as long as wanted.

Hard facts (mm/memcontrol.c, mm/vmscan.c; measured on 6.1 and 6.12):

- EAGAIN says that less than asked was reclaimed; what was stays reclaimed. It is
  an outcome, not an error. So is EINTR, with an unknown amount.
- A write holds up an rmdir of its target together with cgroup_mutex. Hence pieces.
- At the first priority the kernel scans 32 pages of each list of an offline memcg, however small
  it is, and nothing of a live one below 16 MiB (get_scan_count); whole lists of both at the last.
  So what is asked for little by little is found before it comes to live ones that are too young
  for a shield.
- A walk takes that much of every dying memcg, whatever was asked: 128 KiB were, and 1.2 MiB gone
  within 3 ms. The next write, for what was no longer there, took 25 to 166 ms, down to the last
  priority (6.1, TCG). They were not yet counted as freed. memory.current tells at once, and does
  not lag as memory.stat does.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..model import Reclaim
from .cgroupfs import PAGE_BYTES, Cgroup, CgroupGone, KernelRefused, Unsupported
from .cost import MIN_WRITE_BYTES, WriteCost

LITTLE_PART = 16  # of what is left, in one write beside live cgroups
LITTLE_BYTES = 256 << 10  # at least: one dying memcg below 8 MiB gives it at the first two priorities
# Of what is left, as memory.stat has it with its lag: a write may be for more than there is, or than is
# clean by now. The kernel looks for 32 pages at least (SWAP_CLUSTER_MAX), down to the last priority. With
# 1 MiB no more dying memcgs were left than with this (1,279 and 1,179, held by dirty inodes).
TAIL_BYTES = 512 << 10


@dataclass(slots=True)
class Tally:
    """What the writes of one window come to; kept up to date, so an exception loses nothing."""

    done_bytes: int = 0  # asked for, or gone, if that is more
    writes: int = 0
    took_usec: int = 0  # in the kernel
    longest_usec: int = 0
    exhausted: bool = False  # the last one asked for more than there was
    put_off: bool = False  # the tail was left, since others were born beside it


class Writer:
    def __init__(self, *, swappiness_word: bool) -> None:
        self._swappiness_word = swappiness_word
        self.cost = WriteCost()

    def rehearsal(self, dying: int) -> Writer:
        """One whose writes take as long as they are predicted to, so that its cost stays what it is now."""
        return _Rehearsal(self._swappiness_word, replace(self.cost), dying)

    def run(
        self,
        target: Cgroup,
        plan: Reclaim,
        tally: Tally,
        *,
        dying: int,
        before: Callable[[], None],
        enough: Callable[[], bool],
        should_stop: Callable[[], bool],
        little: bool,
        crowded: Callable[[], bool] | None = None,
    ) -> None:
        """Write until the plan's bytes or time are used up, the kernel has no more, or `enough` says so.

        `before` runs before each write. `little` by little where live cgroups are beside what is asked for;
        the tail, for which the kernel looks long and hard, not while it is `crowded` there: then no write
        may be made at all. Raises CgroupGone, and KernelError for what else the kernel refuses.
        """
        deadline_usec = None
        while tally.done_bytes < plan.max_bytes and not tally.exhausted:
            if deadline_usec is not None and (self._now_usec() >= deadline_usec or should_stop()):
                return
            before()
            if deadline_usec is None:  # the first shield of many takes long, and buys nothing by itself
                deadline_usec = self._now_usec() + plan.window_usec
            left_bytes = plan.max_bytes - tally.done_bytes
            if little and left_bytes < TAIL_BYTES and crowded is not None and crowded():
                tally.put_off = True
                return
            size_bytes = min(self.cost.fitting_bytes(plan.write_usec), left_bytes)
            if plan.keep_mapped:  # small steps, to see in time that mapped pages begin to go
                size_bytes = min(size_bytes, MIN_WRITE_BYTES)
            elif little:
                part_bytes = left_bytes // LITTLE_PART // PAGE_BYTES * PAGE_BYTES
                size_bytes = min(size_bytes, max(part_bytes, LITTLE_BYTES))
            held_bytes = self._held_bytes(target) if little else 0
            took_usec, tally.exhausted = self._write(target, size_bytes)
            tally.writes += 1
            tally.took_usec += took_usec
            tally.longest_usec = max(tally.longest_usec, took_usec)
            done_bytes = max(size_bytes, held_bytes - self._held_bytes(target)) if little else size_bytes
            if not tally.exhausted:
                self.cost.learn(wrote_bytes=done_bytes, dying=dying, took_usec=took_usec)
            tally.done_bytes += done_bytes
            if enough():
                return

    def _write(self, target: Cgroup, size_bytes: int) -> tuple[int, bool]:
        """Kernel time of the write, and whether the kernel found less than asked."""
        request = f"{size_bytes} swappiness=0" if self._swappiness_word else str(size_bytes)
        exhausted = False
        started_usec = self._now_usec()
        try:
            target.write("memory.reclaim", request)
        except KernelRefused as error:
            if error.errno not in (errno.EAGAIN, errno.EINTR):
                raise
            exhausted = error.errno == errno.EAGAIN
        return self._now_usec() - started_usec, exhausted

    def _held_bytes(self, target: Cgroup) -> int:
        try:
            return target.memory_current()
        except Unsupported:  # an rmdir takes this file first, and then waits for who writes to another
            raise CgroupGone(target.path) from None

    def _now_usec(self) -> int:
        return time.monotonic_ns() // 1000


class _Rehearsal(Writer):
    def __init__(self, swappiness_word: bool, cost: WriteCost, dying: int) -> None:
        super().__init__(swappiness_word=swappiness_word)
        self.cost = cost
        self._dying = dying
        self._passed_usec = 0

    def _held_bytes(self, target: Cgroup) -> int:
        return 0  # nothing goes by what is not written

    def _now_usec(self) -> int:
        return self._passed_usec

    def _write(self, target: Cgroup, size_bytes: int) -> tuple[int, bool]:
        super()._write(target, size_bytes)
        took_usec = self.cost.predicted_usec(size_bytes, self._dying)
        self._passed_usec += took_usec
        return took_usec, False
