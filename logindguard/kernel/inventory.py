"""Single dying memcgs by their path, where MGLRU's debugfs lists them.

Hard facts (mm/vmscan.c lru_gen_seq_show; Documentation/admin-guide/mm/multigen_lru.rst):

- /sys/kernel/debug/lru_gen has every memcg of the machine, offline ones too: a line `memcg ID PATH`,
  then for each node ` node N` and a line for each generation: number, age in ms, anonymous pages, pages
  of files. It is there with CONFIG_LRU_GEN and debugfs mounted, for root, and tells nothing of pages
  while MGLRU is off.
- ID is the memcg's private one, in five columns, and 0 from its end on. Later kernels write the public
  one without padding: that is the cgroup's inode, and stays. The root comes first and is 1 in both.
- A write to the file ages or evicts: it is opened for reading alone, which does neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .cgroupfs import PAGE_BYTES

FILE = Path("kernel/debug/lru_gen")  # below /sys
_MEMCG = "memcg "
_NODE = " node "


class NoInventory(Exception):
    """The kernel does not list them, or not to us; the sentence says why."""


@dataclass(frozen=True, slots=True)
class DyingMemcg:
    """`path` is that of the cgroup it was; bytes are of its LRU pages."""

    path: str
    file_bytes: int
    anon_bytes: int


def dying_memcgs(sys: Path, inode_of: Callable[[str], int | None]) -> list[DyingMemcg]:
    """Those of the whole machine, those that hold most first. `inode_of` is that of the live cgroup there."""
    try:
        with (sys / FILE).open(encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
            found = list(parse(lines, inode_of))
    except FileNotFoundError as error:
        raise NoInventory(
            "Single dying memcgs are listed only by MGLRU (CONFIG_LRU_GEN), where debugfs is mounted"
        ) from error
    except OSError as error:
        raise NoInventory(f"/sys/{FILE} cannot be read: {error.strerror}") from error
    return sorted(found, key=lambda each: (-each.file_bytes - each.anon_bytes, each.path))


def parse(lines: Iterable[str], inode_of: Callable[[str], int | None]) -> Iterator[DyingMemcg]:
    """What is not understood is passed over: debugfs promises nothing."""
    public: bool | None = None
    path: str | None = None  # of the dying one that the lines are about
    file_pages = anon_pages = 0
    for line in lines:
        if line.startswith(_MEMCG):
            if path is not None:
                yield DyingMemcg(path, file_pages * PAGE_BYTES, anon_pages * PAGE_BYTES)
            number, _, name = line[len(_MEMCG) :].lstrip(" ").rstrip("\n").partition(" ")
            if public is None:  # from the root's line
                public = not line.startswith(f"{_MEMCG} ")
            dying = number.isdecimal() and inode_of(name) != int(number) if public else number == "0"
            path, file_pages, anon_pages = (name if dying and name else None), 0, 0
        elif path is not None and not line.startswith(_NODE):
            words = line.split()
            if len(words) == 4 and all(word.isdecimal() for word in words):
                anon_pages += int(words[2])
                file_pages += int(words[3])
    if path is not None:
        yield DyingMemcg(path, file_pages * PAGE_BYTES, anon_pages * PAGE_BYTES)
