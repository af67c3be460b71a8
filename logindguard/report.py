"""A stretch of time in figures: how much was dying, who left it, what was done about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .blame import Account, Blame
from .model import ReclaimRecord, Sample
from .owners import By, owner_by, stranger_by
from .statistics import Statistics

OWNERS = (By.USER, By.TRIGGER, By.UNIT)
MOST_OWNERS = 10
_GAP = 3  # times the usual distance of two samples: longer, and nothing is known of what was between

Course = list[float | None]
"""A value for each of equal parts of the time, None where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`owners` are those who left most, the first of them worst; times are realtime."""

    begin_usec: int
    end_usec: int
    samples: tuple[Sample, ...]
    dying: int
    residue_bytes: int
    teardowns: int
    totals: Statistics
    owners: Mapping[By, Sequence[tuple[str, Account]]]

    def course(self, value: Callable[[Sample], float], parts: int) -> Course:
        return course(self.samples, self.begin_usec, self.end_usec, value, parts)


class Books:
    """What a report says of records, booked one by one, oldest first."""

    def __init__(self, timers: Collection[str] = ()) -> None:
        self._totals = Statistics()
        self._blames = {by: Blame(owner_by(by, timers), stranger_by(by)) for by in OWNERS}

    def book(self, record: ReclaimRecord) -> None:
        self._totals.book(record)
        for blame in self._blames.values():
            blame.book(record)

    def close(
        self,
        samples: Iterable[Sample],
        *,
        begin_usec: int,
        end_usec: int,
        dying: Mapping[str, int] | int,
        reasons: Mapping[str, str],
        residue_bytes: int,
    ) -> Report:
        """Samples oldest first; `dying` and `reasons` as Blame.close takes them, as of now."""
        for blame in self._blames.values():
            blame.close(dying, reasons)
        triggers = self._blames[By.TRIGGER]
        self._totals.teardowns = Counter({who: each.teardowns for who, each in triggers.accounts.items()})
        return Report(
            begin_usec=begin_usec,
            end_usec=end_usec,
            samples=tuple(sample for sample in samples if begin_usec <= sample.realtime_usec <= end_usec),
            dying=dying if isinstance(dying, int) else sum(dying.values()),
            residue_bytes=residue_bytes,
            teardowns=triggers.teardowns,
            totals=self._totals,
            owners={by: blame.ranked()[:MOST_OWNERS] for by, blame in self._blames.items()},
        )


def course(
    samples: Sequence[Sample], begin_usec: int, end_usec: int, value: Callable[[Sample], float], parts: int
) -> Course:
    """The highest value within each part; a part between two samples that are near has the older one's."""
    found: Course = [None] * parts
    width_usec = max(1, end_usec - begin_usec) / parts

    def part(usec: int) -> int:
        return min(parts - 1, max(0, int((usec - begin_usec) / width_usec)))

    for sample in samples:
        at = part(sample.realtime_usec)
        found[at] = max(value(sample), found[at] or 0)
    usual_usec = _usual_distance(samples)
    for older, newer in pairwise(samples):
        if newer.realtime_usec - older.realtime_usec <= _GAP * usual_usec:
            for at in range(part(older.realtime_usec) + 1, part(newer.realtime_usec)):
                found[at] = value(older)
    return found


def _usual_distance(samples: Sequence[Sample]) -> int:
    """The median, in microseconds; 0 of fewer than two."""
    distances = sorted(newer.realtime_usec - older.realtime_usec for older, newer in pairwise(samples))
    return distances[len(distances) // 2] if distances else 0
