"""The shield: memory.min of live cgroups raised for one short window, and surely put back.

Hard facts (mm/memcontrol.c, measured on 6.1 and 6.12):

- `memory.min` is reset to 0 when a memcg goes offline, so raising it on live
  cgroups leaves dying ones as the only thing that a reclaim may take.
- For the target's own children the kernel takes `memory.min` as it stands. With
  `memory_recursiveprot` it covers all below them; without it every live
  descendant needs its own.
- A finite value is safer than "max" should it ever stay behind. A sibling that
  grows needs head-room: twice its usage plus 64 MiB lost no page, once its usage
  lost 134.
- systemd writes `memory.min` too (set-property, daemon-reload). What does not hold
  our value any more is not ours to restore. Nothing compares and sets in one go, so
  each value is looked at again right before it is written.
- SIGKILL can come between any two lines here. So the ledger (ledger.py) is written
  before the kernel is touched, and emptied after it was put back.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

from .cgroupfs import MAX_DEPTH, PAGE_BYTES, Cgroup, CgroupGone, Hierarchy, KernelError, Unsupported
from .ledger import Entry, Ledger, LedgerError

_MOST_BYTES = 1 << 60  # the kernel shows what is near its own bound as "max", which is not what we wrote
RACES = 5  # in which others changed a value between our look at it and our write, one after the other


_Uncovered = tuple[Entry, int | None]  # what is to be written, with the value that is there now


@dataclass(frozen=True, slots=True)
class Restored:
    """What `restore` did with the entries it found."""

    restored: int = 0
    not_ours: int = 0  # somebody else wrote another value meanwhile
    gone: int = 0

    @property
    def total(self) -> int:
        return self.restored + self.not_ours + self.gone

    def __str__(self) -> str:
        return f"{self.restored} put back, {self.not_ours} changed by others since, {self.gone} gone"


class Shield:
    """Raised memory.min below one target; the ledger's lock must be held."""

    def __init__(self, ledger: Ledger, target: Cgroup, *, recursiveprot: bool, margin_bytes: int) -> None:
        self._ledger = ledger
        self._target = target
        self._descend = not recursiveprot
        self._margin_bytes = margin_bytes
        self._entries: list[Entry] = []  # all that was written, oldest first
        self._latest: dict[int, Entry] = {}  # by inode
        self._lock = threading.Lock()  # `cover` comes from another thread than the rest

    def __len__(self) -> int:
        return len(self._latest)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.lower()

    def raise_(self) -> None:
        """Cover all live cgroups that are not covered, or have outgrown it; call again and again.

        On any error nothing more may be reclaimed: what is covered is put back
        on the way out, the rest was never covered.
        """
        with self._lock:
            self._raise(lambda: self._uncovered(self._target))

    def cover(self, name: str) -> None:
        """The same for one child, which was born just now, while a write is in the kernel."""

        def born() -> Iterator[_Uncovered]:
            try:
                with self._target.open_child(name) as child:
                    yield from self._uncovered_child(child)
            except CgroupGone:
                return

        with self._lock:
            self._raise(born)

    def _raise(self, uncovered: Callable[[], Iterator[_Uncovered]]) -> None:
        for _ in range(RACES):
            wanted = list(uncovered())
            if not wanted:
                return
            # Older values stay in: SIGKILL may come before the newer ones are set.
            self._entries += [entry for entry, _ in wanted]
            self._ledger.write(self._entries)
            if all(self._set(entry, held_bytes) for entry, held_bytes in wanted):
                return
        raise KernelError(self._target.path, "memory.min", "others change it below here all the time")

    def _set(self, entry: Entry, held_bytes: int | None) -> bool:
        """Whether it is covered, or gone; not where somebody wrote another value meanwhile."""
        try:
            with self._open(entry) as cgroup:
                if cgroup.memory_limit(entry.file) != held_bytes:
                    return False
                self._latest[entry.inode] = entry
                cgroup.set_memory_limit(entry.file, entry.ours_bytes)
        except CgroupGone:
            pass
        except Unsupported:  # an rmdir takes the files first; or the controller was taken away
            return False
        return True

    def _uncovered(self, parent: Cgroup, depth: int = 0) -> Iterator[_Uncovered]:
        if depth > MAX_DEPTH:
            raise KernelError(parent.path, "", "nested too deep to be shielded")
        for child in parent.children():
            yield from self._uncovered_child(child, depth)

    def _uncovered_child(self, child: Cgroup, depth: int = 0) -> Iterator[_Uncovered]:
        try:
            if self._descend:
                yield from self._uncovered(child, depth + 1)
            current_bytes, held_bytes = child.memory_current(), child.memory_limit("memory.min")
            known = self._latest.get(child.inode)
            if known is not None and held_bytes == known.ours_bytes:
                if (known.ours_bytes or 0) >= current_bytes + self._margin_bytes // 2:
                    return
                old_bytes = known.old_bytes
            else:  # systemd's or the administrator's, perhaps written in this very window: that one stays
                old_bytes = held_bytes
            ours_bytes = min(2 * current_bytes + self._margin_bytes, _MOST_BYTES)
        except CgroupGone:
            return
        except Unsupported:
            if child.populated():  # its processes are charged to the target: nothing can cover them
                raise
            return
        ours_bytes -= ours_bytes % PAGE_BYTES  # the kernel shows whole pages
        ours_bytes |= PAGE_BYTES  # an odd number of them: nobody else's 64M shall look like ours
        if held_bytes is not None and held_bytes < ours_bytes:  # else the administrator's covers it
            yield Entry(child.inode, child.path, old_bytes, ours_bytes), held_bytes

    def lower(self) -> None:
        """Put everything back and empty the ledger; what the kernel refuses stays in it and is raised."""
        left: list[Entry] = []
        refusal: KernelError | None = None
        for entry in reversed(self._entries):  # else an older one of the same value would be put back
            try:
                with self._open(entry) as cgroup:
                    put_back(cgroup, entry)
            except CgroupGone:
                continue
            except KernelError as error:
                left.insert(0, entry)
                refusal = error
        self._entries.clear()
        self._latest.clear()
        self._ledger.write(left)
        if refusal is not None:
            raise refusal

    def _open(self, entry: Entry) -> Cgroup:
        """The very cgroup of the entry: reached from the target's descriptor, told by its inode."""
        names = entry.path.removeprefix(self._target.path).strip("/").split("/")
        cgroup = self._target.open_child(names[0])
        for name in names[1:]:
            with cgroup:
                deeper = cgroup.open_child(name)
            cgroup = deeper
        if cgroup.inode != entry.inode:
            cgroup.close()
            raise CgroupGone(entry.path)
        return cgroup


def put_back(cgroup: Cgroup, entry: Entry) -> bool:
    """Write the old value where it is the same cgroup and still holds ours; say whether it was."""
    if cgroup.inode != entry.inode:
        raise CgroupGone(entry.path)
    if cgroup.memory_limit(entry.file) != entry.ours_bytes:
        return False
    cgroup.set_memory_limit(entry.file, entry.old_bytes)
    return True


def restore(hierarchy: Hierarchy, ledger: Ledger, *, timeout_sec: float = 5.0) -> Restored:
    """Put back what a killed process left raised. Safe at any time: it waits for an open window to close.

    Raises LedgerError where that cannot be known: a lock that stays taken, an
    unreadable ledger, or a 32-bit kernel, whose inode numbers are reused.
    """
    with ledger.locked(timeout_sec):
        return restore_locked(hierarchy, ledger)


def restore_locked(hierarchy: Hierarchy, ledger: Ledger) -> Restored:
    """The same for who holds the lock: entries found under it have no living owner."""
    entries = ledger.entries()
    if not entries:
        return Restored()
    if struct.calcsize("P") < 8:
        raise LedgerError("32-bit: cgroup inodes are reused, put memory.min back by hand")
    restored = not_ours = gone = 0
    left: list[Entry] = []
    refusal: KernelError | None = None
    for entry in reversed(entries):
        try:
            with hierarchy.open(entry.path) as cgroup:
                if put_back(cgroup, entry):
                    restored += 1
                else:
                    not_ours += 1
        except CgroupGone:
            gone += 1
        except KernelError as error:
            refusal = error
            left.insert(0, entry)
    ledger.write(left)
    if refusal is not None:
        raise LedgerError(f"{len(left)} of {len(entries)} values could not be put back: {refusal}")
    return Restored(restored, not_ours, gone)
