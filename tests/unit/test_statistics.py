"""Totals: each record counted once, under its way and outcome."""

from __future__ import annotations

from dataclasses import replace

from logindguard.model import Mode, Outcome, ReclaimRecord, Way
from logindguard.statistics import Statistics

RECORD = ReclaimRecord(
    id="1",
    realtime_usec=5,
    way=Way.AFTER,
    target="/user.slice",
    target_inode=7,
    outcome=Outcome.RELEASED,
    reason="",
    mode=Mode.PRECISE,
    freed_bytes=100,
    stolen_pages=1,
    writes=2,
    cpu_usec=30,
    longest_write_usec=20,
)


def test_every_record_counts_once() -> None:
    statistics = Statistics()
    for record in (RECORD, replace(RECORD, way=Way.SWEEP, realtime_usec=9, longest_write_usec=3), RECORD):
        statistics.book(record)
    assert statistics.by_way_and_outcome() == [
        (Way.AFTER, Outcome.RELEASED, 2),
        (Way.SWEEP, Outcome.RELEASED, 1),
    ]
    assert (statistics.freed_bytes, statistics.stolen_pages, statistics.writes) == (300, 3, 6)
    assert (statistics.cpu_usec, statistics.longest_write_usec, statistics.last_realtime_usec) == (90, 20, 9)
