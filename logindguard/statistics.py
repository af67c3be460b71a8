"""Totals since the start of the service, booked from each record: no names, so they are open to all."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

from .model import Outcome, Phase, ReclaimRecord, Teardown, Way
from .owners import trigger_of

BOUNDS_USEC = (1_000, 5_000, 20_000, 100_000, 500_000, 2_000_000, 10_000_000)
"""Of the time that a reclaim took, upper and inclusive; whatever took longer is beyond the last."""


@dataclass(slots=True)
class Durations:
    """How many reclaims took how long; `counts` has one more than there are bounds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_USEC) + 1))
    sum_usec: int = 0

    def book(self, duration_usec: int) -> None:
        self.counts[bisect_left(BOUNDS_USEC, duration_usec)] += 1
        self.sum_usec += duration_usec


@dataclass(slots=True)
class Stopwatch:
    """How long something was the case; the times are the caller's clock."""

    past_usec: int = 0
    since_usec: int | None = None

    def note(self, now_usec: int, *, on: bool) -> None:
        """It is, or is no longer, the case; to say so again changes nothing."""
        if self.since_usec is not None and not on:
            self.past_usec += now_usec - self.since_usec
            self.since_usec = None
        elif self.since_usec is None and on:
            self.since_usec = now_usec

    def total_usec(self, now_usec: int) -> int:
        return self.past_usec + (0 if self.since_usec is None else now_usec - self.since_usec)


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
    durations: dict[Way, Durations] = field(default_factory=lambda: {way: Durations() for way in Way})
    teardowns: Counter[str] = field(default_factory=Counter)  # ended ones, by what made the unit

    def heard(self, teardown: Teardown) -> None:
        if teardown.phase is Phase.ENDED:
            self.teardowns[trigger_of(teardown)] += 1

    def book(self, record: ReclaimRecord) -> None:
        self.reclaims[record.way, record.outcome] += 1
        self.freed_bytes += record.freed_bytes
        self.freed_by_way[record.way] += record.freed_bytes
        self.stolen_pages += record.stolen_pages
        self.writes += record.writes
        self.cpu_usec += record.cpu_usec
        self.longest_write_usec = max(self.longest_write_usec, record.longest_write_usec)
        self.last_realtime_usec = max(self.last_realtime_usec, record.realtime_usec)
        if record.writes:
            self.durations[record.way].book(record.wall_usec)

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
