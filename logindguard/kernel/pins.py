"""What dying memcgs under one live cgroup still hold, by kind, and the readings that say so.

Hard facts (memory.stat in cgroup-v2.rst and cgroup-v1/memory.rst, mm/memcontrol.c):

- What is charged to a dying memcg stays in the counters of its live ancestors, so what all those
  directly under P hold is P's counter less those of its live children. v1 has P's own share apart
  (`total_` and bare keys); on v2 it cannot be told from theirs, but slices have none.
- `file` includes shmem, mapped, dirty and writeback pages, which may overlap one another: what is
  clean and unmapped is at least the rest.
- slab is charged to the parent at offline since 5.9 (obj_cgroup_reparent): it is in P's counters as
  well, and keeps no memcg alive. So is `percpu`, the memcgs' own counters. Before that it kept the
  memcg until it was freed, and much was not.
- A socket refers to the memcg of who made or accepted it until it is closed (mem_cgroup_sk_alloc), also
  where it was passed to a process elsewhere, or lingers after its process has ended.
- v1 has no keys for kernel memory: memory.kmem.usage_in_bytes is all of it, TCP buffers apart.
- Swap is in memory.swap.current (v2) or memory.stat (v1), and on v2 in no other counter.
- The counters lag behind by up to 64 pages a CPU, and are read one after the other, P first: what
  processes charge meanwhile makes the difference smaller. Less than nothing is nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from .cgroupfs import BadReading, Cgroup, CgroupGone, Hierarchy, KernelError, Unsupported

KERNEL_MEMORY_LETS_GO = (5, 9)


class Kind(StrEnum):
    """What memory is held as."""

    CLEAN = "clean"  # page cache that is on disk and mapped by nobody
    DIRTY = "dirty"
    WRITEBACK = "writeback"
    MAPPED = "mapped"
    SHMEM = "shmem"
    ANON = "anon"
    SWAP = "swap"
    SLAB = "slab"
    SOCK = "sock"
    PERCPU = "percpu"
    KERNEL = "kernel"  # all kernel memory, where v1 has but one counter
    OTHER = "other"  # charged, and in none of the counters above


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """`held_bytes` is `parent_bytes` less `live_bytes` of the live children, by one file and its key."""

    kind: Kind
    held_bytes: int
    file: str
    key: str = ""
    parent_bytes: int = 0
    live_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    path: str
    inode: int
    dying: int | None  # directly under it; None on v1, which counts the hierarchy as a whole
    live_children: int
    processes: bool  # it holds processes itself: on v2 their memory cannot be told from a residue
    pins: tuple[Pin, ...]  # every kind that this kernel counts, also what is 0

    def held(self, kind: Kind) -> int:
        return next((pin.held_bytes for pin in self.pins if pin.kind is kind), 0)


_Keys = dict[Kind, tuple[str, str]]
_V2: _Keys = {
    Kind.DIRTY: ("memory.stat", "file_dirty"),
    Kind.WRITEBACK: ("memory.stat", "file_writeback"),
    Kind.MAPPED: ("memory.stat", "file_mapped"),
    Kind.SHMEM: ("memory.stat", "shmem"),
    Kind.ANON: ("memory.stat", "anon"),
    Kind.SWAP: ("memory.swap.current", ""),
    Kind.SLAB: ("memory.stat", "slab"),
    Kind.SOCK: ("memory.stat", "sock"),
    Kind.PERCPU: ("memory.stat", "percpu"),
}
_V1: _Keys = {
    Kind.DIRTY: ("memory.stat", "dirty"),
    Kind.WRITEBACK: ("memory.stat", "writeback"),
    Kind.MAPPED: ("memory.stat", "mapped_file"),
    Kind.SHMEM: ("memory.stat", "shmem"),
    Kind.ANON: ("memory.stat", "rss"),
    Kind.SWAP: ("memory.stat", "swap"),
    Kind.KERNEL: ("memory.kmem.usage_in_bytes", ""),
    Kind.SOCK: ("memory.kmem.tcp.usage_in_bytes", ""),
}
_IN_FILE = (Kind.SHMEM, Kind.MAPPED, Kind.DIRTY, Kind.WRITEBACK)
_CHARGED = (Kind.ANON, Kind.SLAB, Kind.PERCPU, Kind.KERNEL)  # in memory.current, page cache apart
_V2_CHARGED = (*_CHARGED, Kind.SOCK)


class _Readings:
    """The files of one cgroup, each read once; `own` of a v1 cgroup is what it holds itself."""

    def __init__(self, cgroup: Cgroup, version: int) -> None:
        self._cgroup = cgroup
        self._prefix = "total_" if version == 1 else ""
        self._stat = cgroup.keyed("memory.stat")

    def bytes(self, file: str, key: str) -> int | None:
        """With all that is below it; None where this kernel does not count it."""
        return self._of_stat(self._prefix + key) if file == "memory.stat" else self._of_file(file)

    def own_bytes(self, file: str, key: str) -> int:
        return (self._of_stat(key) or 0) if self._prefix and file == "memory.stat" else 0

    def _of_stat(self, key: str) -> int | None:
        text = self._stat.get(key)
        return None if text is None else self._int(f"memory.stat: {key}", text)

    def _of_file(self, file: str) -> int | None:
        try:
            return self._int(file, self._cgroup.read(file))
        except Unsupported:
            return None

    def _int(self, what: str, text: str) -> int:
        try:
            return int(text)
        except ValueError as error:
            raise BadReading(self._cgroup.path, what, str(error)) from error


class TooMany(KernelError):
    """There is no time to read all: on a host that is sick of dying memcgs each takes up to a second."""

    def __init__(self, path: str, count: int) -> None:
        super().__init__(
            path, "", f"the memory.stat of its live cgroups takes too long to read, after {count}"
        )


def explain(
    hierarchy: Hierarchy,
    path: str,
    dying_key: str = "nr_dying_descendants",
    *,
    should_stop: Callable[[], bool] = lambda: False,  # asked before each live child
) -> Explained:
    """Reads alone. Raises CgroupGone, other KernelErrors, and ValueError for what is no cgroup path.

    TooMany where `should_stop` said yes.
    """
    version = hierarchy.version
    with hierarchy.open(path) as cgroup:
        dying = None if version == 1 else cgroup.dying(dying_key)
        parent = _Readings(cgroup, version)
        totals = _totals(parent.bytes, version)
        live: dict[tuple[str, str], int] = dict.fromkeys(totals, 0)
        children = 0
        for child in cgroup.children():
            if should_stop():
                raise TooMany(cgroup.path, children)
            try:
                if dying is not None:
                    dying -= child.dying(dying_key)
                for what, count_bytes in _totals(_Readings(child, version).bytes, version).items():
                    live[what] = live.get(what, 0) + count_bytes
            except (CgroupGone, Unsupported):  # a child without the controller is part of its parent
                continue
            children += 1
        try:
            processes = bool(cgroup.read("cgroup.procs").strip())
        except KernelError:  # of a threaded cgroup
            processes = True
        own = {what: parent.own_bytes(*what) for what in totals}
        return Explained(
            path=cgroup.path,
            inode=cgroup.inode,
            dying=None if dying is None else max(0, dying),
            live_children=children,
            processes=processes,
            pins=tuple(_pins(version, totals, live, own)),
        )


def _everything(version: int) -> tuple[_Keys, tuple[str, str], tuple[str, str]]:
    """The keys by kind, that of all page cache, that of all that is charged."""
    if version == 1:
        return _V1, ("memory.stat", "cache"), ("memory.usage_in_bytes", "")
    return _V2, ("memory.stat", "file"), ("memory.current", "")


def _totals(read: Callable[[str, str], int | None], version: int) -> dict[tuple[str, str], int]:
    keys, cache, usage = _everything(version)
    found = {what: read(*what) for what in (cache, usage, *keys.values())}
    return {what: count_bytes for what, count_bytes in found.items() if count_bytes is not None}


def _pins(
    version: int,
    totals: dict[tuple[str, str], int],
    live: dict[tuple[str, str], int],
    own: dict[tuple[str, str], int],
) -> list[Pin]:
    keys, cache, usage = _everything(version)

    def pin(kind: Kind, what: tuple[str, str]) -> Pin:
        parent_bytes = totals.get(what, 0) - own.get(what, 0)
        live_bytes = live.get(what, 0)
        return Pin(
            kind=kind,
            held_bytes=max(0, parent_bytes - live_bytes),
            file=what[0],
            key=what[1],
            parent_bytes=parent_bytes,
            live_bytes=live_bytes,
        )

    found = {kind: pin(kind, what) for kind, what in keys.items() if what in totals}

    def held(kinds: tuple[Kind, ...]) -> int:
        return sum(found[kind].held_bytes for kind in kinds if kind in found)

    whole = pin(Kind.CLEAN, cache)
    clean = replace(whole, held_bytes=max(0, whole.held_bytes - held(_IN_FILE)))
    pins = [clean, *found.values()]
    if usage in totals:
        charged = pin(Kind.OTHER, usage)
        # Own page cache and anonymous memory of a v1 cgroup are in its usage too.
        own_bytes = own.get(cache, 0) + own.get(keys[Kind.ANON], 0)
        named = whole.held_bytes + held(_CHARGED if version == 1 else _V2_CHARGED) + own_bytes
        pins.append(replace(charged, held_bytes=max(0, charged.held_bytes - named)))
    return pins
