"""No swapping for a moment, on kernels where memory.reclaim takes no `swappiness=` (before 6.11).

Hard facts (mm/vmscan.c, can_reclaim_anon_pages; measured on 6.1): where memory.swap.max
leaves no room, reclaim of that cgroup does not look at its anonymous and shared memory
at all. What is swapped already stays where it is.

Only for a cgroup that is about to be removed: killed in between, it leaves the limit behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .cgroupfs import Cgroup, CgroupGone, Unsupported

_FILE = "memory.swap.max"


def can_forbid_swap(cgroup: Cgroup) -> bool:
    """Not where swap is not accounted (swapaccount=0, no CONFIG_SWAP). Raises CgroupGone."""
    try:
        cgroup.memory_limit(_FILE)
    except Unsupported:
        return False
    return True


@contextmanager
def no_swap(cgroup: Cgroup) -> Iterator[None]:
    """Raises CgroupGone, or KernelRefused where the limit cannot be set."""
    old_bytes = cgroup.memory_limit(_FILE)
    cgroup.set_swap_max(0)
    try:
        yield
    finally:
        with suppress(CgroupGone):  # and the limit with it
            cgroup.set_swap_max(old_bytes)
