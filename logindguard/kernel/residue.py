"""What hangs dying under a live cgroup, and what it still holds there.

Hard facts (cgroup.stat, memory.stat; Documentation/admin-guide/cgroup-v2.rst):

- `nr_dying_descendants` counts a whole subtree, so a subtree that shows 0 need not
  be walked, and what hangs directly under P is P's count less its live children's.
- What offline memcgs hold stays in the counters of their live ancestors, so a
  residue is P's memory.stat less its live children's. The files are read one
  after the other while processes go on: small differences are noise, and less
  than nothing is nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ..model import Residue
from .cgroupfs import MAX_DEPTH, Cgroup, CgroupGone, MemoryStat, Unsupported


def walk(cgroup: Cgroup, dying_key: str) -> Iterator[Residue]:
    """A residue, without bytes, for each live parent that dying memcgs hang under; deepest first."""
    yield from _walk(cgroup, cgroup.dying(dying_key), dying_key)


def _walk(cgroup: Cgroup, total: int, dying_key: str, depth: int = 0) -> Iterator[Residue]:
    if total == 0 or depth > MAX_DEPTH:
        return
    below = 0
    for child in cgroup.children():
        try:
            count = child.dying(dying_key)
            yield from _walk(child, count, dying_key, depth + 1)
        except CgroupGone:
            continue
        below += count
    if total > below:
        yield Residue(path=cgroup.path, inode=cgroup.inode, dying=total - below)


def dying_directly(cgroup: Cgroup, dying_key: str) -> int:
    below = 0
    for child in cgroup.children():
        try:
            below += child.dying(dying_key)
        except CgroupGone:
            continue
    return max(0, cgroup.dying(dying_key) - below)


@dataclass(frozen=True, slots=True)
class Family:
    """memory.stat of a target and of its live children by inode."""

    parent: MemoryStat
    children: dict[int, MemoryStat]
    paths: dict[int, str] = field(default_factory=dict)

    @classmethod
    def read(cls, cgroup: Cgroup) -> Family:
        children: dict[int, MemoryStat] = {}
        paths: dict[int, str] = {}
        for child in cgroup.children():
            try:
                children[child.inode] = child.memory_stat()
            except (CgroupGone, Unsupported):  # a child without the controller is part of its parent
                continue
            paths[child.inode] = child.path
        return cls(cgroup.memory_stat(), children, paths)

    def residue(self, path: str, inode: int, dying: int) -> Residue:
        def rest(key: str) -> int:
            total: int = getattr(self.parent, key)
            below: int = sum(getattr(child, key) for child in self.children.values())
            return max(0, total - below)

        return Residue(
            path=path,
            inode=inode,
            dying=dying,
            file_bytes=rest("file"),
            mapped_bytes=rest("file_mapped"),
            dirty_bytes=rest("file_dirty"),
            writeback_bytes=rest("file_writeback"),
            shmem_bytes=rest("shmem"),
            anon_bytes=rest("anon"),
        )

    def stolen_since(self, before: Family, given: Callable[[str], int] = lambda path: 0) -> dict[str, int]:
        """Pages that live children lost, by path, beside what each was `given` leave to lose.

        One that was born meanwhile counts from 0. Those that lost nothing are left out.
        """
        lost_pages = {self.paths[inode]: lost for inode, lost in self._lost_since(before) if lost > 0}
        stolen_pages = {path: lost - given(path) for path, lost in lost_pages.items()}
        return {path: stolen for path, stolen in stolen_pages.items() if stolen > 0}

    def lost_since(self, before: Family, given: Callable[[str], int] = lambda path: 0) -> int:
        """Pages that children lost, whoever took them; of one that went meanwhile, what it was `given` to."""
        gone = sum(given(path) for inode, path in before.paths.items() if inode not in self.children)
        return gone + sum(max(0, lost) for _, lost in self._lost_since(before))

    def _lost_since(self, before: Family) -> Iterator[tuple[int, int]]:
        for inode, stat in self.children.items():
            known = before.children.get(inode)
            yield inode, stat.pgsteal - (known.pgsteal if known else 0)
