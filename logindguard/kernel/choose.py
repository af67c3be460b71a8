"""Which backend this machine gets, and why."""

from __future__ import annotations

from pathlib import Path

from .backend import Backend
from .cgroupfs import Hierarchy
from .features import probe
from .observe import ObserveBackend
from .shield import Ledger
from .v2 import V2Backend


def choose(
    hierarchy: Hierarchy,
    ledger: Ledger,
    roots: tuple[str, ...] = (),
    *,
    proc: Path = Path("/proc"),
    sys: Path = Path("/sys"),
) -> Backend:
    """The backend that can do most without harm. Raises KernelError when a root cannot be opened."""
    if hierarchy.version == 1:
        return ObserveBackend(hierarchy, "the memory controller is on cgroup v1", proc=proc)
    features = probe(hierarchy, roots[0] if roots else "/", proc=proc, sys=sys)
    if features.reparents_lru:
        return ObserveBackend(hierarchy, "this kernel heals itself: it reparents page cache", proc=proc)
    if not features.memory_reclaim:
        return ObserveBackend(hierarchy, "this kernel has no memory.reclaim (5.19 brought it)", proc=proc)
    return V2Backend(hierarchy, features, ledger, roots=roots, proc=proc)
