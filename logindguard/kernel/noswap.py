"""No swapping for a moment, where the kernel's reclaim takes no `swappiness=` (v2 before 6.11, and v1).

Hard facts (mm/vmscan.c, can_reclaim_anon_pages and get_scan_count; measured on 6.1):

- v2: where memory.swap.max leaves no room, reclaim of that cgroup and what is below it
  does not look at anonymous and shared memory at all.
- v1: the same where memory.swappiness is 0, for that cgroup alone.
- What is swapped already stays where it is.

Only for a cgroup that is about to be removed: killed in between, it leaves the value behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .cgroupfs import Cgroup, CgroupGone, Unsupported

V1_FILE, V2_FILE = "memory.swappiness", "memory.swap.max"


def can_forbid_swap(cgroup: Cgroup, file: str) -> bool:
    """Not where swap is not accounted (swapaccount=0, no CONFIG_SWAP). Raises CgroupGone."""
    try:
        cgroup.read(file)
    except Unsupported:
        return False
    return file == V2_FILE or not cgroup.child_names()


@contextmanager
def no_swap(cgroup: Cgroup, file: str) -> Iterator[None]:
    """Raises CgroupGone, or KernelRefused where the value cannot be set."""
    old = cgroup.read(file).strip()
    cgroup.write(file, "0")
    try:
        yield
    finally:
        with suppress(CgroupGone):  # and the value with it
            cgroup.write(file, old)
