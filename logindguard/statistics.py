"""Totals since the start of the service, booked from each record: no names, so they are open to all."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from .model import Outcome, ReclaimRecord, Way


@dataclass(slots=True)
class Statistics:
    """Counters that only grow."""

    reclaims: Counter[tuple[Way, Outcome]] = field(default_factory=Counter)
    freed_bytes: int = 0
    freed_by_way: Counter[Way] = field(default_factory=Counter)  # bytes
    stolen_pages: int = 0  # upper bound of what live cgroups lost
    writes: int = 0
    cpu_usec: int = 0
    longest_write_usec: int = 0  # the longest of all, no sum
    last_realtime_usec: int = 0  # of the last record; 0 before the first one

    def book(self, record: ReclaimRecord) -> None:
        self.reclaims[record.way, record.outcome] += 1
        self.freed_bytes += record.freed_bytes
        self.freed_by_way[record.way] += record.freed_bytes
        self.stolen_pages += record.stolen_pages
        self.writes += record.writes
        self.cpu_usec += record.cpu_usec
        self.longest_write_usec = max(self.longest_write_usec, record.longest_write_usec)
        self.last_realtime_usec = max(self.last_realtime_usec, record.realtime_usec)

    def by_way_and_outcome(self) -> list[tuple[Way, Outcome, int]]:
        """Every pair that occurred, in a stable order."""
        return sorted((way, outcome, count) for (way, outcome), count in self.reclaims.items())

    def __str__(self) -> str:
        """ "23 MiB released (12 before a removal, 9 after it, 2 by the sweep)"."""
        before, after, sweep = (self.freed_by_way[way] >> 20 for way in (Way.BEFORE, Way.AFTER, Way.SWEEP))
        return (
            f"{self.freed_bytes >> 20} MiB released "
            f"({before} before a removal, {after} after it, {sweep} by the sweep)"
        )
