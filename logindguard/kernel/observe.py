"""Counting alone: for machines where nothing may or can be reclaimed.

Hard facts:

- v2: everything can be read that can be read where reclaim is possible.
- v1: there is a count for the whole hierarchy (v1_count.py), and none at all where
  only a part of it is mounted.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..model import Mode, PlannedWrite, Reading, Reclaim, Residue, Window
from .cgroupfs import Hierarchy, Unsupported
from .features import Features
from .ledger import Ledger
from .pins import Explained, explain
from .v1_count import DyingCount
from .v2 import V2Backend


class ObserveV2(V2Backend):
    """Reads as on any cgroup v2; reclaiming is `Unsupported`."""

    name = "observe"
    mode = Mode.OBSERVE

    def __init__(
        self,
        hierarchy: Hierarchy,
        features: Features,
        ledger: Ledger,
        reason: str,
        *,
        roots: tuple[str, ...] = (),
        proc: Path = Path("/proc"),
    ) -> None:
        super().__init__(hierarchy, features, ledger, roots=roots, proc=proc)
        self.reason = reason

    def reclaim(self, residue: Residue, plan: Reclaim, should_stop: Callable[[], bool]) -> Window:
        raise Unsupported(residue.path, "", self.reason)

    def plan(self, residue: Residue, plan: Reclaim) -> list[PlannedWrite]:
        return []

    def reclaim_ending(self, residue: Residue, plan: Reclaim, should_stop: Callable[[], bool]) -> Window:
        raise Unsupported(residue.path, "", self.reason)


class ObserveBackend:
    """Implements `Backend` where there is little to read; all but the counts are `Unsupported`."""

    name = "observe"
    mode = Mode.OBSERVE

    def __init__(
        self, hierarchy: Hierarchy, reason: str, *, counts: bool = True, proc: Path = Path("/proc")
    ) -> None:
        self.hierarchy = hierarchy
        self._counts = counts  # else there is nothing to count by
        self.reason = reason
        self._proc = proc
        self._dying = DyingCount(hierarchy, proc)

    def total_dying(self) -> int:
        if self.hierarchy.version == 2:
            with self.hierarchy.open("/") as cgroup:
                return cgroup.dying()
        if not self._counts:
            raise Unsupported("/", "", self.reason)
        return self._dying.total()

    def residues(self) -> list[Residue]:
        return []

    def explain(self, path: str) -> Explained:
        return explain(self.hierarchy, path)

    def nearest_live(self, path: str) -> str:
        return self.hierarchy.nearest_live(path)

    def read(self, path: str) -> Reading:
        raise Unsupported(path, "", self.reason)

    def read_ending(self, path: str) -> Reading:
        raise Unsupported(path, "", self.reason)

    def reclaim(self, residue: Residue, plan: Reclaim, should_stop: Callable[[], bool]) -> Window:
        raise Unsupported(residue.path, "", self.reason)

    def plan(self, residue: Residue, plan: Reclaim) -> list[PlannedWrite]:
        return []

    def reclaim_ending(self, residue: Residue, plan: Reclaim, should_stop: Callable[[], bool]) -> Window:
        raise Unsupported(residue.path, "", self.reason)
