"""cgroup v2: reclaim that takes only dying memcgs, by memory.reclaim behind a shield.

Hard facts (mm/memcontrol.c, mm/vmscan.c; measured on 6.1 and 6.12):

- `memory.reclaim` on a live parent walks offline children too, so with every live
  child shielded it takes nothing but what dying memcgs hold.
- 6.1 walks the whole subtree in every write, so a small write does not bound the
  kernel time: it follows the number of dying memcgs, and is predicted from it.
- A write holds up an rmdir of its target together with cgroup_mutex. So writes are
  sized by the kernel time they take, and a parent that may be removed is not
  written to where even the smallest is predicted to take long.
- Reclaim takes unmapped pages before mapped ones only by the accessed bit, so idle
  mapped pages go with the rest, some with every pass. So where many are mapped the
  amount stays below what is unmapped, a window ends when they begin to go, and
  what went counts against later windows on the same parent for an hour.
- With MGLRU not even that: of an offline memcg it scans everything at once, however little
  was asked (get_nr_to_scan; 128 KiB took 20 of 40 MiB mapped). There it is all or nothing.
- Loss is `pgsteal` over the live children, an upper bound that includes kswapd and
  limits. What the target gave is `pgsteal` of the target less that. What an ending cgroup
  gave on its own counts as neither (see given.py).
- memory.stat lags behind by up to 64 pages a CPU (MEMCG_CHARGE_BATCH).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from ..model import MAX_SHIELDED, Mode, Outcome, PlannedWrite, Reading, Reclaim, Residue, Window
from .births import Births
from .cgroupfs import PAGE_BYTES, PERMANENT, Cgroup, CgroupGone, Hierarchy, KernelError, Unsupported
from .confine import Confined
from .cost import MIN_WRITE_BYTES
from .dry import DryCgroup, NoLedger, Notes
from .features import Features
from .given import Given
from .idle import thread_cpu_usec
from .lately import Lately
from .ledger import Ledger, LedgerError
from .noswap import V2_FILE, NoSwap
from .outcome import outcome_of
from .pins import Explained, explain
from .pressure import read_host_memory
from .residue import Family, dying_directly, walk
from .shield import Shield, restore_locked
from .writer import Tally, Writer

SHIELD_MARGIN_BYTES = 64 << 20
COVER_SEC = 0.01  # in which none outgrows its margin, where births are covered at once
COVER_PART = 4  # as long between two looks at what is covered as the look took
LAG_BYTES = 2 << 20  # most that memory.stat is taken to lag behind
_UNITS_WITH_PROCESSES = (".service", ".scope")

log = logging.getLogger(__name__)


class V2Backend(Confined):
    """Implements `Backend`; see there for the contract."""

    name = "v2"
    mode = Mode.PRECISE

    def __init__(
        self,
        hierarchy: Hierarchy,
        features: Features,
        ledger: Ledger,
        *,
        roots: tuple[str, ...] = (),
        proc: Path = Path("/proc"),
        births: Births | None = None,
    ) -> None:
        super().__init__(hierarchy, roots)
        self.features = features
        self._births = births
        self.reason = "memory.reclaim with a shield of memory.min"
        self._ledger = ledger
        self._proc = proc
        self._key = features.dying_key
        self._mapped_loss = Lately()  # every pass over a residue takes some idle mapped pages along
        self._given = Given()
        self._no_swap = NoSwap(hierarchy, ledger, V2_FILE)
        self._writer = Writer(swappiness_word=features.swappiness_word)

    # Counting

    def total_dying(self) -> int:
        total = 0
        for root in self._roots:
            try:
                with self.hierarchy.open(root) as cgroup:
                    total += cgroup.dying(self._key)
            except CgroupGone:
                continue
        return total

    def residues(self) -> list[Residue]:
        found: list[Residue] = []
        for root in self._roots:
            try:
                with self.hierarchy.open(root) as cgroup:
                    found.extend(walk(cgroup, self._key))
            except CgroupGone:
                continue
        return found

    # Reading

    def read(self, path: str) -> Reading:
        started_usec = thread_cpu_usec()
        host = read_host_memory(self._proc)
        with self.hierarchy.open(path) as cgroup:
            live_children = len(cgroup.child_names())
            many = live_children > MAX_SHIELDED  # then none of them is read: that would take seconds
            dying = cgroup.dying(self._key) if many else dying_directly(cgroup, self._key)
            # Without the controller below it, processes below it are charged to it. systemd takes the
            # controller away with the last child, so then it is empty, and what it holds is residue.
            shieldable = not path.endswith(_UNITS_WITH_PROCESSES) and (
                "memory" in cgroup.controllers_below() or not cgroup.populated()
            )
            if path != "/" and "memory" not in cgroup.controllers():
                shieldable = False  # it is no memcg itself
            residue = Residue(path=path, inode=cgroup.inode, dying=dying)
            covered_bytes = predicted_write_usec = 0
            if dying and shieldable and not many:
                family = Family.read(cgroup)
                residue = family.residue(path, cgroup.inode, dying)
                covered_bytes = sum(stat.file - stat.shmem for stat in family.children.values())
                predicted_write_usec = self._predicted_usec(cgroup, residue)
        return Reading(
            residue=residue,
            live_children=live_children,
            own_pages=path == "/" or not shieldable,
            permanent=path in PERMANENT,
            headroom_bytes=self._headroom(path),
            available_bytes=max(host.free_bytes, host.available_bytes - covered_bytes),
            swap_on=host.swap_on,
            refuses_swap=self.features.swappiness_word,
            memory_some_percent=host.memory_some_percent,
            predicted_write_usec=predicted_write_usec,
            read_usec=thread_cpu_usec() - started_usec,
            spares_mapped=not self.features.mglru,
            mapped_lost_bytes=self._mapped_loss.at(residue.inode),
        )

    def explain(self, path: str) -> Explained:
        return explain(self.hierarchy, path, self._key)

    def _predicted_usec(self, target: Cgroup, residue: Residue) -> int:
        """Kernel time of the smallest write, as far as something else than its size decides on it."""
        cost = self._writer.cost
        walk_usec = 0 if self.features.partial_walks else cost.walk_usec(residue.dying)
        # Where processes live, they would have to end first: no removal comes in the midst of a write.
        # The root, which has no cgroup.events, is never removed.
        scrapes = self.features.mglru and target.path != "/" and not target.populated()
        return max(walk_usec, cost.scrape_usec(residue.file_bytes) if scrapes else 0)

    def read_ending(self, path: str) -> Reading:
        """Of the cgroup itself while a stop job empties it: all in its subtree counts as residue."""
        host = read_host_memory(self._proc)
        with self.hierarchy.open(path) as cgroup:
            residue = Family(cgroup.memory_stat(), {}).residue(path, cgroup.inode, 0)
            usage_bytes = cgroup.memory_current()
            may_forbid_swap = self._no_swap.possible(cgroup)
        return Reading(
            residue=residue,
            live_children=0,
            own_pages=True,
            permanent=False,
            headroom_bytes=None,  # nothing is shielded here, so nothing can run out
            available_bytes=host.available_bytes,
            swap_on=host.swap_on,
            refuses_swap=self.features.swappiness_word,
            memory_some_percent=host.memory_some_percent,
            predicted_write_usec=0,
            usage_bytes=usage_bytes,
            may_forbid_swap=may_forbid_swap,
        )

    def _headroom(self, path: str) -> int | None:
        """Bytes to the nearest limit of the cgroup and its ancestors, those outside `roots` too."""
        rooms: list[int] = []
        while path != "/":
            with self.hierarchy.open(path) as cgroup:
                try:
                    limits = [cgroup.memory_limit(file) for file in ("memory.max", "memory.high")]
                    if finite := [limit for limit in limits if limit is not None]:
                        rooms.append(max(0, min(finite) - cgroup.memory_current()))
                except Unsupported:  # without the controller there is no limit
                    pass
            path = path.rpartition("/")[0] or "/"
        return min(rooms, default=None)

    # Reclaiming

    def reclaim(self, residue: Residue, plan: Reclaim, should_stop: Callable[[], bool]) -> Window:
        with self._open(residue) as target, self._ledger.locked():
            restore_locked(self.hierarchy, self._ledger)  # else this window would write over what is left
            return self._window(target, plan, should_stop)

    def _window(self, target: Cgroup, plan: Reclaim, should_stop: Callable[[], bool]) -> Window:
        cpu_usec, started = thread_cpu_usec(), time.monotonic()
        dying = dying_directly(target, self._key)
        before = Family.read(target)
        first = before.residue(target.path, target.inode, dying)
        mapped_goes = False

        def enough() -> bool:
            nonlocal mapped_goes
            if plan.keep_mapped:
                now = Family.read(target).residue(target.path, target.inode, dying)
                mapped_goes = now.mapped_bytes < first.mapped_bytes - MIN_WRITE_BYTES
            return mapped_goes or target.dying(self._key) == 0

        tally = Tally()
        failure: KernelError | LedgerError | None = None
        shielded, due_sec = 0, float("-inf")

        def cover() -> None:
            nonlocal shielded, due_sec
            began_sec = time.monotonic()
            if began_sec >= due_sec:
                shield.raise_()
                shielded, ended_sec = len(shield), time.monotonic()
                rest_sec = max(COVER_SEC, COVER_PART * (ended_sec - began_sec))
                due_sec = ended_sec + rest_sec if heard else began_sec

        try:
            with (
                self._shield(self._ledger, target) as shield,
                self._births.told(target, shield.cover) if self._births else nullcontext() as lately,
            ):
                heard = lately is not None and self.features.recursiveprot  # else not those born deeper
                self._writer.run(
                    target,
                    plan,
                    tally,
                    dying=dying,
                    before=cover,
                    enough=enough,
                    should_stop=should_stop,
                    little=True,
                    crowded=lately,
                )
        except CgroupGone:
            raise
        except (KernelError, LedgerError) as error:
            if tally.writes == 0:
                raise
            failure = error  # what was written before it is told all the same
        after = Family.read(target)
        left = after.residue(target.path, target.inode, dying_directly(target, self._key))
        if plan.keep_mapped:
            self._mapped_loss.book(target.inode, first.mapped_bytes - left.mapped_bytes)
        given = partial(self._given.pages, started_sec=started)
        stolen_pages = after.stolen_since(before, given)
        for path, pages in stolen_pages.items():
            log.debug("%s lost up to %d pages during a reclaim at %s.", path, pages, target.path)
        taken_pages = after.parent.pgsteal - before.parent.pgsteal - after.lost_since(before, given)
        freed_bytes = max(0, taken_pages) * PAGE_BYTES
        if self.features.mglru:
            self._writer.cost.learn_freed(freed_bytes=freed_bytes, took_usec=tally.took_usec)
        ended = {"mapped_goes": mapped_goes, "put_off": tally.put_off}
        outcome, reason = outcome_of(first, left, freed_bytes, plan, **ended)
        if failure is not None:
            outcome, reason = Outcome.FAILED, str(failure)
        return Window(
            outcome=outcome,
            reason=reason,
            before=first,
            after=left,
            freed_bytes=freed_bytes,
            stolen_pages=sum(stolen_pages.values()),
            writes=tally.writes,
            shielded=shielded,
            cpu_usec=thread_cpu_usec() - cpu_usec,
            wall_usec=int((time.monotonic() - started) * 1e6),
            longest_write_usec=tally.longest_usec,
            put_off=tally.put_off,
        )

    def _shield(self, ledger: Ledger, target: Cgroup) -> Shield:
        recursiveprot = self.features.recursiveprot
        return Shield(ledger, target, recursiveprot=recursiveprot, margin_bytes=SHIELD_MARGIN_BYTES)

    def plan(self, residue: Residue, plan: Reclaim) -> list[PlannedWrite]:
        notes = Notes()
        with (
            self._open(residue) as live,
            DryCgroup.over(live, notes) as target,
            self._shield(NoLedger(), target) as shield,
        ):
            self._writer.rehearsal(residue.dying).run(
                target,
                plan,
                Tally(),
                dying=residue.dying,
                before=lambda: None if len(shield) else shield.raise_(),
                enough=lambda: False,
                should_stop=lambda: False,
                little=True,
            )
        return notes.writes

    def reclaim_ending(self, residue: Residue, plan: Reclaim, should_stop: Callable[[], bool]) -> Window:
        cpu_usec, started = thread_cpu_usec(), time.monotonic()
        tally = Tally()
        freed_bytes, left = 0, residue
        outcome, reason = Outcome.PARTIAL, ""
        most_pages = residue.file_bytes // PAGE_BYTES
        with self._open(residue) as target, self._given.giving(target.path, most_pages) as gift:
            pgsteal, usage_bytes = target.memory_stat().pgsteal, target.memory_current()

            def enough() -> bool:
                nonlocal freed_bytes, left
                stat = target.memory_stat()
                left = Family(stat, {}).residue(target.path, target.inode, 0)
                # The counters lag behind by some pages; the usage does not, but it falls when a process ends.
                stolen_bytes = (stat.pgsteal - pgsteal) * PAGE_BYTES
                freed_bytes = max(freed_bytes, stolen_bytes)
                if tally.exhausted:
                    fell_bytes = usage_bytes - target.memory_current()
                    freed_bytes = max(freed_bytes, min(fell_bytes, stolen_bytes + LAG_BYTES))
                return plan.keep_mapped and left.mapped_bytes < residue.mapped_bytes - MIN_WRITE_BYTES

            try:
                wait_sec = plan.window_usec / 1e6
                with self._no_swap.on(target, wait_sec=wait_sec) if plan.forbid_swap else nullcontext():
                    # No sibling is in reach of the write, so there is nothing to cover before it.
                    run = partial(self._writer.run, target, plan, tally, dying=0, before=lambda: None)
                    run(enough=enough, should_stop=should_stop, little=False)
            except CgroupGone:
                outcome, reason = Outcome.GONE, "removed meanwhile"
            else:
                gift.pages = freed_bytes // PAGE_BYTES
        return Window(
            outcome=outcome,
            reason=reason,
            before=residue,
            after=left,
            freed_bytes=freed_bytes,
            writes=tally.writes,
            cpu_usec=thread_cpu_usec() - cpu_usec,
            wall_usec=int((time.monotonic() - started) * 1e6),
            longest_write_usec=tally.longest_usec,
        )
