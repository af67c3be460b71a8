"""A journal with a week of samples: dying memcgs pile up, the service is away for a day, then they go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from logindguard.ctl.past import to_record
from logindguard.model import Booking, Mode, ReclaimRecord, Sample
from logindguard.record.entry import booking_of, to_fields
from logindguard.record.history import MAX_SAMPLES, Found, History

from .fake_service import MIB, NOW_USEC, RECORDS, SEC

HOUR_USEC = 3600 * SEC
AWAY = range(60, 84)  # hours


def samples() -> list[Sample]:
    return [
        Sample(
            realtime_usec=NOW_USEC - (168 - hour) * HOUR_USEC,
            mode=Mode.PRECISE,
            dying=(dying := hour * 30 if hour < 120 else (168 - hour) * 75 + hour % 12 * 40),
            residue_bytes=dying * MIB // 8,
            teardowns_total=hour * 40,
            freed_bytes_total=hour * 200 * MIB,
            stolen_pages_total=0,
            cpu_usec_total=hour * SEC,
        )
        for hour in range(168)
        if hour not in AWAY
    ]


class Past(History):
    def each(self, since_usec: int = 0) -> Iterator[ReclaimRecord]:
        return reversed(self.find(since_usec=since_usec).records)

    def bookings(self, since_usec: int = 0) -> Iterator[Booking]:
        return (booking_of(to_fields(record)) for record in self.each(since_usec))

    def find(self, *, since_usec: int = 0, **_: Any) -> Found:
        return Found([to_record(row) for row in RECORDS if row["realtime_usec"] >= since_usec])

    def samples(self, *, since_usec: int = 0, limit: int = MAX_SAMPLES) -> list[Sample]:
        return [sample for sample in samples() if sample.realtime_usec >= since_usec]
