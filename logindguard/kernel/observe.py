"""Counting alone: for machines where nothing may or can be reclaimed.

Hard facts:

- v2: `cgroup.stat` of the root counts all that is dying.
- v1: the memory line of /proc/cgroups counts online and dying memcgs alike, so
  the dying ones are that number less the directories, the root included.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ..model import Mode, PlannedWrite, Reading, Reclaim, Residue, Window
from .cgroupfs import Hierarchy, Unsupported


class ObserveBackend:
    """Implements `Backend`; reading for a decision and reclaiming are `Unsupported`."""

    name = "observe"
    mode = Mode.OBSERVE

    def __init__(self, hierarchy: Hierarchy, reason: str, *, proc: Path = Path("/proc")) -> None:
        self.hierarchy = hierarchy
        self.reason = reason
        self._proc = proc

    def total_dying(self) -> int:
        if self.hierarchy.version == 2:
            with self.hierarchy.open("/") as cgroup:
                return cgroup.dying()
        for line in (self._proc / "cgroups").read_text().splitlines():
            words = line.split()
            if words[0] == "memory":
                return max(0, int(words[2]) - sum(1 for _ in os.walk(self.hierarchy.mount)))
        return 0

    def residues(self) -> list[Residue]:
        return []

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
