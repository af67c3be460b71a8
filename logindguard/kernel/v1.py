"""cgroup v1: memory.force_empty, in slices, on an ending cgroup itself or below a live parent.

Hard facts (mm/memcontrol-v1.c, mem_cgroup_force_empty; measured on 6.18):

- `memory.force_empty` reclaims the whole subtree, offline children included and live
  ones too: nothing on v1 shields a sibling. On the root it is EINVAL.
- It goes on until nothing is charged or 16 tries in a row found nothing, and looks for
  a signal between tries of 32 pages. So a timer cuts it into slices; then it says
  EINTR, and what was reclaimed stays reclaimed.
- It begins by draining the LRU batches of all CPUs through a kworker on each, and
  waits for them asleep: a slice that ends before them has done nothing, and the
  next one must be longer.
- A slice holds up an rmdir of its target together with cgroup_mutex, like any write.
- It may swap: what holds anonymous or shared memory is not for it while swap is on.
- Before 6.10 every try walks the whole subtree, and no signal ends a walk: there the
  number of dying memcgs bounds the time of a slice from below.
- v1 counts dying memcgs for the whole hierarchy alone, whatever the roots are.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from ..model import Mode, Outcome, PlannedWrite, Purpose, Reading, Reclaim, Residue, Window
from .cgroupfs import PAGE_BYTES, PERMANENT, Cgroup, CgroupGone, Hierarchy
from .confine import Confined
from .cost import MIN_WRITE_BYTES, WriteCost
from .features import Features
from .idle import thread_cpu_usec
from .interrupt import Interrupter
from .lately import Lately
from .ledger import Ledger
from .noswap import V1_FILE, NoSwap
from .pins import Explained, explain
from .pressure import HostMemory, read_host_memory
from .v1_count import DyingCount
from .v1_stat import LiveTree, read_stat, usage_bytes

_FILE, _VALUE = "memory.force_empty", "0"  # any value does
MAX_GROWTH = 4  # of a slice, where draining alone takes longer than it should


@dataclass(slots=True)
class _Slices:
    """What the slices of one window come to; kept up to date, so an exception loses nothing."""

    count: int = 0
    longest_usec: int = 0
    gave_bytes: int = 0  # by which the usage of the target fell meanwhile
    exhausted: bool = False


class V1Backend(Confined):
    """Implements `Backend`; see there for the contract. Make it in the main thread."""

    name = "v1"
    mode = Mode.SHARED
    reason = (
        "cgroup v1 shields no live cgroup, so what ended is reclaimed before its removal, "
        "and what is left after it only where reclaim.shared is on"
    )

    def __init__(
        self,
        hierarchy: Hierarchy,
        features: Features,
        ledger: Ledger,
        *,
        roots: tuple[str, ...] = (),
        proc: Path = Path("/proc"),
    ) -> None:
        """Raises RuntimeError where writes cannot be interrupted."""
        super().__init__(hierarchy, roots)
        self.features = features
        self._proc = proc
        self._dying = DyingCount(hierarchy, proc)
        self._no_swap = NoSwap(hierarchy, ledger, V1_FILE)
        self._interrupter = Interrupter()
        self._cost = WriteCost()
        self._gave, self._lost = Lately(), Lately()  # dying and live ones, until all is released

    # Counting

    def total_dying(self) -> int:
        return self._dying.total()

    def residues(self) -> list[Residue]:
        """Their bytes are read already here, since nothing else tells where something is dying."""
        dying = self.total_dying()
        found: list[Residue] = []
        for root in self._roots:
            try:
                with self.hierarchy.open(root) as cgroup:
                    tree = LiveTree.read(cgroup)
            except CgroupGone:
                continue
            for each in tree.walk():
                residue = each.residue(dying)
                if residue.file_bytes:
                    found.append(residue)
        return found

    # Reading

    def read(self, path: str) -> Reading:
        started_usec = thread_cpu_usec()
        with self.hierarchy.open(path) as cgroup:
            tree = LiveTree.read(cgroup)
        dying = self.total_dying()
        return self._reading(
            tree.residue(dying),
            read_host_memory(self._proc),
            live_children=len(tree.children),
            live_bytes=tree.live_bytes,
            predicted_write_usec=0 if self.features.partial_walks else self._cost.walk_usec(dying),
            read_usec=thread_cpu_usec() - started_usec,
        )

    def explain(self, path: str) -> Explained:
        return explain(self.hierarchy, path)

    def read_ending(self, path: str) -> Reading:
        """Of the cgroup itself while a stop job empties it: all in its subtree counts as residue."""
        with self.hierarchy.open(path) as cgroup:
            residue = _whole(cgroup)
            may_forbid_swap = self._no_swap.possible(cgroup)
        return self._reading(residue, read_host_memory(self._proc), may_forbid_swap=may_forbid_swap)

    def _reading(
        self,
        residue: Residue,
        host: HostMemory,
        *,
        live_children: int = 0,
        live_bytes: int = 0,
        predicted_write_usec: int = 0,
        read_usec: int = 0,
        may_forbid_swap: bool = False,
    ) -> Reading:
        return Reading(
            residue=residue,
            live_children=live_children,
            own_pages=residue.path == "/",  # never written to
            permanent=residue.path in PERMANENT,
            headroom_bytes=None,  # nothing is shielded here, so nothing can run out
            available_bytes=host.available_bytes,
            swap_on=host.swap_on,
            refuses_swap=False,
            memory_some_percent=host.memory_some_percent,
            predicted_write_usec=predicted_write_usec,
            read_usec=read_usec,
            shields=False,
            live_bytes=live_bytes,
            gave_bytes=self._gave.at(residue.inode),
            lost_bytes=self._lost.at(residue.inode),
            may_forbid_swap=may_forbid_swap,
        )

    # Reclaiming

    def reclaim(self, residue: Residue, plan: Reclaim, should_stop: Callable[[], bool]) -> Window:
        cpu_usec, started = thread_cpu_usec(), time.monotonic()
        slices = _Slices()
        with self._open(residue) as target:
            before = LiveTree.read(target)
            first = before.residue(residue.dying)
            self._empty(target, plan, slices, should_stop, enough=lambda: False)
            after = LiveTree.read(target)
        left = after.residue(self.total_dying())
        lost_pages = after.lost_pages_since(before)
        # The counters lag behind, the usage does not; it has what live cgroups lost in it.
        freed_bytes = max(first.file_bytes - left.file_bytes, slices.gave_bytes - lost_pages * PAGE_BYTES, 0)
        outcome, reason = _verdict(left, freed_bytes, exhausted=slices.exhausted)
        self._book(residue.inode, outcome, freed_bytes, lost_pages * PAGE_BYTES)
        return Window(
            outcome=outcome,
            reason=reason,
            before=first,
            after=left,
            freed_bytes=freed_bytes,
            stolen_pages=lost_pages,
            writes=slices.count,
            cpu_usec=thread_cpu_usec() - cpu_usec,
            wall_usec=int((time.monotonic() - started) * 1e6),
            longest_write_usec=slices.longest_usec,
        )

    def _book(self, inode: int, outcome: Outcome, freed_bytes: int, lost_bytes: int) -> None:
        if outcome is Outcome.RELEASED:
            self._gave.forget(inode)
            self._lost.forget(inode)
        else:
            self._gave.book(inode, freed_bytes)
            self._lost.book(inode, lost_bytes)

    def plan(self, residue: Residue, plan: Reclaim) -> list[PlannedWrite]:
        with self._open(residue) as target:
            write = PlannedWrite(path=target.path, file=_FILE, value=_VALUE, purpose=Purpose.RECLAIM)
        return [write] * max(1, plan.window_usec // plan.write_usec)

    def reclaim_ending(self, residue: Residue, plan: Reclaim, should_stop: Callable[[], bool]) -> Window:
        cpu_usec, started = thread_cpu_usec(), time.monotonic()
        slices = _Slices()
        left = residue
        outcome, reason = Outcome.PARTIAL, "what its processes still map or write was left"
        with self._open(residue) as target:

            def enough() -> bool:
                nonlocal left
                left = _whole(target)
                mapped_goes = left.mapped_bytes < residue.mapped_bytes - MIN_WRITE_BYTES
                return left.file_bytes == 0 or (plan.keep_mapped and mapped_goes)

            try:
                wait_sec = plan.window_usec / 1e6
                with self._no_swap.on(target, wait_sec=wait_sec) if plan.forbid_swap else nullcontext():
                    self._empty(target, plan, slices, should_stop, enough)
                left = _whole(target)
            except CgroupGone:
                outcome, reason = Outcome.GONE, "removed meanwhile"
        return Window(
            outcome=outcome,
            reason=reason,
            before=residue,
            after=left,
            freed_bytes=max(0, residue.file_bytes - left.file_bytes),
            writes=slices.count,
            cpu_usec=thread_cpu_usec() - cpu_usec,
            wall_usec=int((time.monotonic() - started) * 1e6),
            longest_write_usec=slices.longest_usec,
        )

    def _empty(
        self,
        target: Cgroup,
        plan: Reclaim,
        slices: _Slices,
        should_stop: Callable[[], bool],
        enough: Callable[[], bool],
    ) -> None:
        """Slices of the plan's write time until its window is over, the kernel has no more, or `enough`.

        At least one is made, and a longer one after each that gave nothing, up to MAX_GROWTH times as long.
        Raises CgroupGone, and KernelRefused for any errno but EINTR.
        """
        cpu_usec, started = thread_cpu_usec(), time.monotonic()
        slice_usec, max_slice_usec = plan.write_usec, MAX_GROWTH * plan.write_usec
        while True:
            used_bytes = usage_bytes(target)
            slices.exhausted = self._slice(target, slice_usec, slices)
            gave_bytes = used_bytes - usage_bytes(target)
            slices.gave_bytes += max(0, gave_bytes)
            if slices.exhausted or enough() or should_stop():
                return
            if gave_bytes <= 0 and slice_usec < max_slice_usec:
                slice_usec = min(2 * slice_usec, max_slice_usec)
                if thread_cpu_usec() - cpu_usec < plan.window_usec:  # most of it was asleep
                    continue
            if time.monotonic() - started >= plan.window_usec / 1e6:
                return

    def _slice(self, target: Cgroup, slice_usec: int, slices: _Slices) -> bool:
        """Whether force_empty came to its end by itself."""
        with target.errors(_FILE):
            fd = os.open(_FILE, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=target.fd)
            try:
                started = time.monotonic_ns()
                ended = self._interrupter.write(fd, _VALUE.encode(), slice_usec)
                took_usec = (time.monotonic_ns() - started) // 1000
            finally:
                os.close(fd)
        slices.count += 1
        slices.longest_usec = max(slices.longest_usec, took_usec)
        if not (ended or self.features.partial_walks):  # what it took longer is the walk it was in
            dying = self.total_dying()
            self._cost.learn(wrote_bytes=0, dying=dying, took_usec=max(0, took_usec - slice_usec))
        return ended


def _whole(cgroup: Cgroup) -> Residue:
    """All that the subtree of a cgroup holds, as a residue: of one that is ending."""
    total = read_stat(cgroup).total
    return Residue(
        path=cgroup.path,
        inode=cgroup.inode,
        dying=0,
        file_bytes=total.cache,
        mapped_bytes=total.mapped_file,
        dirty_bytes=total.dirty,
        writeback_bytes=total.writeback,
        shmem_bytes=total.shmem,
        anon_bytes=total.rss,
    )


def _verdict(left: Residue, freed_bytes: int, *, exhausted: bool) -> tuple[Outcome, str]:
    if left.file_bytes == 0:
        return Outcome.RELEASED, "no dying memcg holds page cache here"
    if not exhausted:
        why = "its time was over"
    elif left.dirty_bytes + left.writeback_bytes > 0:
        why = "the rest waits for writeback"
    elif left.file_bytes <= left.shmem_bytes:
        why = "the rest holds no page cache"
    else:
        why = "the rest is page cache that the kernel did not give up now"
    return (Outcome.PARTIAL if freed_bytes else Outcome.UNCHANGED), why
