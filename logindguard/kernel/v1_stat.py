"""memory.stat of cgroup v1, and what hangs dying under a live cgroup there.

Hard facts (mm/memcontrol-v1.c memcg1_stat_format; measured on 6.18):

- Each counter stands there twice: bare for the cgroup alone, `total_` for its
  subtree, offline children included. A memcg that goes offline keeps its own
  counters, so what hangs dying directly under P is total(P) less local(P) less
  total of each live child.
- `cache` includes shmem, as v2's `file` does; `rss` is v2's `anon`.
- There is no pgsteal. `pgpgin` and `pgpgout` count folios that were charged and
  uncharged, whoever did it, and a folio may be as large as a huge page. So what a
  cgroup lost is bounded from above: by what it held, by the folios it gave away,
  and by how much less it holds, folios taken in meanwhile added.
- The counters lag behind by up to 64 pages a CPU for up to 2 s; reading the
  parent brings those of its subtree up to date beyond that.
- The files are read one after the other. With the parent first, what processes
  charge meanwhile makes a residue look smaller, never larger.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..model import Residue
from .cgroupfs import MAX_DEPTH, PAGE_BYTES, Cgroup, CgroupGone

NOISE_BYTES = 128 << 10
_LARGEST_FOLIO_PAGES = PAGE_BYTES // 8  # of a huge page: one page of table entries


@dataclass(frozen=True, slots=True)
class Counters:
    """Bytes; folios for the last two."""

    cache: int
    rss: int
    mapped_file: int
    dirty: int
    writeback: int
    shmem: int
    pgpgin: int
    pgpgout: int

    @property
    def held_bytes(self) -> int:
        return self.cache + self.rss

    def lost_pages_since(self, before: Counters) -> int:
        """Page cache that it held before and may have lost, at most; without swap nothing else can be."""
        left = self.pgpgout - before.pgpgout
        came = self.pgpgin - before.pgpgin
        less_pages = (before.cache - self.cache) // PAGE_BYTES
        bounds = (
            before.cache // PAGE_BYTES,
            left * _LARGEST_FOLIO_PAGES,
            less_pages + came * _LARGEST_FOLIO_PAGES,
        )
        return max(0, min(bounds))


_KEYS = tuple(Counters.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class MemoryStat1:
    local: Counters
    total: Counters


def read_stat(cgroup: Cgroup) -> MemoryStat1:
    """Raises CgroupGone, and BadReading where a key is missing."""
    numbers = cgroup.numbers("memory.stat", [prefix + key for prefix in ("", "total_") for key in _KEYS])
    return MemoryStat1(Counters(*numbers[: len(_KEYS)]), Counters(*numbers[len(_KEYS) :]))


def usage_bytes(cgroup: Cgroup) -> int:
    """What is charged to the subtree, kernel memory included; exact but for the CPUs' charge stocks."""
    return cgroup.number("memory.usage_in_bytes", cgroup.read("memory.usage_in_bytes"))


@dataclass(frozen=True, slots=True)
class LiveTree:
    """A live cgroup, and all that live below it, as they were read in one walk."""

    path: str
    inode: int
    stat: MemoryStat1
    children: tuple[LiveTree, ...]

    @classmethod
    def read(cls, cgroup: Cgroup, depth: int = 0) -> LiveTree:
        """Raises CgroupGone for the cgroup itself only."""
        stat = read_stat(cgroup)
        children: list[LiveTree] = []
        if depth == MAX_DEPTH:
            stat = MemoryStat1(stat.total, stat.total)  # what is deeper counts as its own
        else:
            for child in cgroup.children():
                try:
                    children.append(cls.read(child, depth + 1))
                except CgroupGone:
                    continue
        return cls(cgroup.path, cgroup.inode, stat, tuple(children))

    def walk(self) -> Iterator[LiveTree]:
        """Every live cgroup of it, the deepest first, itself last."""
        for child in self.children:
            yield from child.walk()
        yield self

    def residue(self, dying: int) -> Residue:
        """What hangs dying directly under it; `dying` is the count of the whole hierarchy.

        Where processes live, so little that it may be the noise of two readings counts as nothing.
        """

        def rest(key: str) -> int:
            below: int = getattr(self.stat.total, key) - getattr(self.stat.local, key)
            live: int = sum(getattr(child.stat.total, key) for child in self.children)
            return max(0, below - live)

        if rest("cache") <= (NOISE_BYTES if self.live_bytes else 0):
            return Residue(path=self.path, inode=self.inode, dying=dying)
        return Residue(
            path=self.path,
            inode=self.inode,
            dying=dying,
            file_bytes=rest("cache"),
            mapped_bytes=rest("mapped_file"),
            dirty_bytes=rest("dirty"),
            writeback_bytes=rest("writeback"),
            shmem_bytes=rest("shmem"),
            anon_bytes=rest("rss"),
        )

    @property
    def live_bytes(self) -> int:
        """Anonymous memory and page cache of all its live cgroups, its own included."""
        return sum(each.stat.local.held_bytes for each in self.walk())

    def lost_pages_since(self, before: LiveTree) -> int:
        """What its live cgroups lost at most."""
        then = {each.inode: each.stat.local for each in before.walk()}
        return sum(
            each.stat.local.lost_pages_since(then[each.inode]) for each in self.walk() if each.inode in then
        )
