"""Which backend this machine gets, and why."""

from __future__ import annotations

import logging
from pathlib import Path

from .backend import Backend
from .births import Births
from .cgroupfs import Hierarchy
from .features import Features, probe
from .ledger import Ledger
from .observe import ObserveBackend, ObserveV2
from .v1 import V1Backend
from .v2 import V2Backend

log = logging.getLogger(__name__)

HEALS = "this kernel heals itself: it reparents page cache"


def choose(
    hierarchy: Hierarchy,
    ledger: Ledger,
    roots: tuple[str, ...] = (),
    *,
    features: Features | None = None,
    proc: Path = Path("/proc"),
    sys: Path = Path("/sys"),
) -> Backend:
    """The backend that can do most without harm. Raises KernelError when a root cannot be opened.

    `features` are probed, which takes root, unless they are given. Call it in the main thread: on v1
    it installs a signal's handler, on v2 it starts a thread that is not to be idle.
    """
    root = roots[0] if roots else "/"
    features = features or probe(hierarchy, root, proc=proc, sys=sys)
    if hierarchy.version == 1:
        hierarchy.open(root).close()
        return _v1(hierarchy, features, ledger, roots, proc)
    if features.reparents_lru:
        why = HEALS
    elif not features.memory_reclaim:
        why = "this kernel has no memory.reclaim (5.19 brought it)"
    else:
        return V2Backend(hierarchy, features, ledger, roots=roots, proc=proc, births=_births())
    return ObserveV2(hierarchy, features, ledger, why, roots=roots, proc=proc)


def _births() -> Births | None:
    try:
        return Births()
    except OSError as error:
        log.warning("Cgroups born during a write have no shield until the next one: %s.", error)
        return None


def _v1(
    hierarchy: Hierarchy, features: Features, ledger: Ledger, roots: tuple[str, ...], proc: Path
) -> Backend:
    if features.reparents_lru:
        return ObserveBackend(hierarchy, HEALS, counts=hierarchy.whole, proc=proc)
    if not hierarchy.whole:
        return ObserveBackend(
            hierarchy,
            f"only a part of the cgroup v1 hierarchy is mounted at {hierarchy.mount}, "
            "and the kernel counts dying memcgs only for all of it",
            counts=False,
            proc=proc,
        )
    if not (hierarchy.mount / "memory.force_empty").exists():
        return ObserveBackend(hierarchy, "this kernel has no memory.force_empty", proc=proc)
    try:
        return V1Backend(hierarchy, features, ledger, roots=roots, proc=proc)
    except RuntimeError as error:
        return ObserveBackend(hierarchy, str(error), proc=proc)
