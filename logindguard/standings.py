"""What the sweep remembers of residues that were not released at once: where each stands, and why."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, field

from .ladder import Stand

# A pass forgets what is gone; where the sweep is off there is none, and user slices come and go for months.
MAX_KEPT = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One residue; `reason` is that of the last try, or the verdict where there is one."""

    path: str = ""
    stand: Stand = field(default_factory=Stand)
    reason: str = ""
    dying: int = 0  # after the last try
    told: frozenset[str] = frozenset()  # what verdicts named that were told, so that each is told once


class Standings:
    """By inode of the live parent; those that came first are forgotten first."""

    def __init__(self) -> None:
        self._all: dict[int, Standing] = {}

    def get(self, inode: int) -> Standing:
        """One that was not tried stands on the lowest rung, due at once."""
        return self._all.get(inode) or Standing()

    def put(self, inode: int, standing: Standing) -> None:
        if inode:  # else it could not even be read: the next pass finds it again
            self._all[inode] = standing
            if len(self._all) > MAX_KEPT:
                del self._all[next(iter(self._all))]

    def pop(self, inode: int) -> Standing:
        return self._all.pop(inode, None) or Standing()

    def inodes(self) -> frozenset[int]:
        return frozenset(self._all)

    def keep(self, inodes: Container[int], *, of: frozenset[int]) -> None:
        """Forgets those `of` some that are not among `inodes`."""
        for inode in of:
            if inode not in inodes:
                self._all.pop(inode, None)

    def due(self, now_usec: int) -> Iterator[tuple[int, str]]:
        """Inode and path, as they come due while the others are tried."""
        for inode, standing in list(self._all.items()):
            if standing.stand.next_usec <= now_usec:
                yield inode, standing.path

    def next_usec(self, otherwise_usec: int) -> int:
        return min((each.stand.next_usec for each in self._all.values()), default=otherwise_usec)
