"""No swapping for a moment, where the kernel's reclaim takes no `swappiness=` (v2 before 6.11, and v1).

Hard facts (mm/vmscan.c, can_reclaim_anon_pages and get_scan_count; measured on 6.1):

- v2: where memory.swap.max leaves no room, reclaim of that cgroup and what is below it
  does not look at anonymous and shared memory at all.
- v1: the same where memory.swappiness is 0, for that cgroup alone.
- What is swapped already stays where it is.

Only for a cgroup that is about to be removed. It may live on all the same (a service that is
restarted), so the value is in the ledger meanwhile, as those of the shield are, and is looked
at again right before it is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from .cgroupfs import Cgroup, CgroupGone, Hierarchy, KernelError, Unsupported
from .ledger import Entry, Ledger
from .shield import RACES, put_back, restore_locked

V1_FILE, V2_FILE = "memory.swappiness", "memory.swap.max"


class NoSwap:
    """`file` is V1_FILE or V2_FILE."""

    def __init__(self, hierarchy: Hierarchy, ledger: Ledger, file: str) -> None:
        self._hierarchy = hierarchy
        self._ledger = ledger
        self._file = file

    def possible(self, cgroup: Cgroup) -> bool:
        """Not where swap is not accounted (swapaccount=0, no CONFIG_SWAP). Raises CgroupGone."""
        try:
            cgroup.read(self._file)
        except Unsupported:
            return False
        return self._file == V2_FILE or not cgroup.child_names()

    @contextmanager
    def on(self, cgroup: Cgroup, *, wait_sec: float) -> Iterator[None]:
        """Raises KernelError, also where others keep changing it, or LedgerError: ledger not free in time."""
        with self._ledger.locked(wait_sec):
            restore_locked(self._hierarchy, self._ledger)  # else this would write over what is left
            entry = self._forbid(cgroup)
            if entry is None:
                yield
                return
            try:
                yield
            finally:
                with suppress(CgroupGone):  # and the value with it
                    put_back(cgroup, entry)
                self._ledger.write([])  # not reached where the kernel refuses: it stays in for `restore`

    def _forbid(self, cgroup: Cgroup) -> Entry | None:
        """What was changed; None where nothing needs to be, and the ledger is empty then, as on any error."""
        for _ in range(RACES):
            old = cgroup.memory_limit(self._file)
            if old == 0:
                return None
            entry = Entry(cgroup.inode, cgroup.path, old, 0, self._file)
            self._ledger.write([entry])
            with ExitStack() as undo:
                undo.callback(self._ledger.write, [])
                if self._set(cgroup, entry):
                    undo.pop_all()
                    return entry
        raise KernelError(cgroup.path, self._file, "others change it all the time")

    def _set(self, cgroup: Cgroup, entry: Entry) -> bool:
        """Not where somebody wrote another value since the look that the entry is of."""
        if cgroup.memory_limit(entry.file) != entry.old_bytes:
            return False
        cgroup.set_memory_limit(entry.file, entry.ours_bytes)
        return True
