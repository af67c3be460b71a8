"""Records read back from the journal: newest first to look at, oldest first to add up.

Hard facts (sd-journal(3), systemd.journal-fields(7); python3-systemd 235):

- Anybody may log any field that does not begin with "_"; those journald adds itself. So
  an entry counts only where journald says that it came from our unit, or, for runs outside
  systemd, from root and from this very Python.
- Entries of other hosts can lie beside ours (systemd-journal-remote): they are not read.
- Without a threshold of 0 long fields are cut at 64 KiB, and a list of teardowns is long.
- `journal.Reader` makes a datetime or an int of each field in Python; its base class gives
  bytes at a third of the cost, and 100,000 records in less than 2 s.
- Matches on one field are alternatives, those on different fields are all required;
  a disjunction begins another set.
- An entry is taken in a little later than it was made, so it is sought with a margin and
  told by the time in the record itself.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..model import Booking, ReclaimRecord, Sample
from .entry import PREFIX, BadEntry, booking_of, from_fields
from .journal import Kind
from .samples import sample_from

T = TypeVar("T", ReclaimRecord, Booking)

UNIT = "logindguard.service"
MARGIN_USEC = 10_000_000
MAX_SEC = 10.0
MAX_USEC = 1 << 55  # no valid time in sd-journal
MAX_SAMPLES = 50_000  # of every 15 min: more than a year
RECORDS = (Kind.RECLAIMED, Kind.SKIPPED, Kind.FAILED)
_CHECK_EVERY = 256  # entries between two looks at the clock


@contextmanager
def _uncollected() -> Iterator[None]:
    """Records have no cycles, and to look for some among 100,000 takes a sixth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class HistoryUnavailable(Exception):
    """The journal cannot be read, the sentence says why."""


@dataclass(slots=True)
class Found:
    """What a query gave: whole, or as far as the time went."""

    records: list[ReclaimRecord] = field(default_factory=list)
    corrupt: int = 0  # entries that are none of ours or were damaged, and left out
    complete: bool = True


class History:
    """The journal of this machine, or the one in `directory`. All of it blocks: call it on a thread."""

    def __init__(self, directory: Path | None = None, *, unit: str = UNIT) -> None:
        self._directory = directory
        self._unit = unit

    @_uncollected()
    def find(
        self,
        *,
        since_usec: int = 0,
        until_usec: int = 0,
        limit: int = 0,
        max_rows: int = 0,
        wanted: Callable[[ReclaimRecord], bool] = lambda record: True,
        max_sec: float = MAX_SEC,
    ) -> Found:
        """Records made within [since, until], realtime, newest first; 0 is no bound.

        Raises HistoryUnavailable. What takes longer than `max_sec`, or has more than `max_rows`
        records and teardowns, is told incomplete.
        """
        found, rows = Found(), 0
        deadline = time.monotonic() + max_sec
        for count, entry in enumerate(self._entries(since_usec, until_usec, found)):
            if count % _CHECK_EVERY == 0 and time.monotonic() >= deadline:
                found.complete = False
                break
            try:
                record = from_fields(entry)
            except BadEntry:
                found.corrupt += 1
                continue
            if (until_usec and record.realtime_usec > until_usec) or record.realtime_usec < since_usec:
                continue
            if wanted(record):
                rows += 1 + len(record.teardowns)
                if max_rows and rows > max_rows and found.records:
                    found.complete = False
                    break
                found.records.append(record)
                if limit and len(found.records) >= limit:
                    break
        return found

    def each(self, since_usec: int = 0) -> Iterator[ReclaimRecord]:
        """Records made since then, realtime, oldest first, none of them kept: there may be a million.

        Raises HistoryUnavailable.
        """
        return self._each(from_fields, since_usec)

    def bookings(self, since_usec: int = 0) -> Iterator[Booking]:
        """The same of less, in less time."""
        return self._each(booking_of, since_usec)

    def _each(self, parse: Callable[[dict[str, Any]], T], since_usec: int) -> Iterator[T]:
        with _uncollected():
            for entry in self._entries(since_usec, 0, Found(), oldest_first=True):
                try:
                    record = parse(entry)
                except BadEntry:
                    continue
                if record.realtime_usec >= since_usec:
                    yield record

    def get(self, record_id: str) -> ReclaimRecord | None:
        """The record of that id; None where the journal has none. Raises HistoryUnavailable."""
        for entry in self._entries(0, 0, Found(), matches=(f"{PREFIX}RECORD_ID={record_id}",)):
            try:
                return from_fields(entry)
            except BadEntry:
                continue
        return None

    def samples(self, *, since_usec: int = 0, limit: int = MAX_SAMPLES) -> list[Sample]:
        """The last so many, oldest first. Raises HistoryUnavailable."""
        found: list[Sample] = []
        for entry in self._entries(since_usec, 0, Found(), kinds=(Kind.SAMPLE,)):
            try:
                sample = sample_from(entry)
            except BadEntry:
                continue
            if sample.realtime_usec >= since_usec:
                found.append(sample)
            if len(found) >= limit:
                break
        return found[::-1]

    def _entries(
        self,
        since_usec: int,
        until_usec: int,
        found: Found,
        *,
        kinds: tuple[Kind, ...] = RECORDS,
        matches: tuple[str, ...] = (),
        oldest_first: bool = False,
    ) -> Iterator[dict[str, Any]]:
        reader = self._open(kinds, matches)
        try:
            if oldest_first:
                reader.seek_realtime(min(since_usec, MAX_USEC))
            elif 0 < until_usec < MAX_USEC - MARGIN_USEC:
                reader.seek_realtime(until_usec + MARGIN_USEC)
            else:
                reader.seek_tail()
            step = reader._next if oldest_first else reader._previous
            while step():
                if reader._get_realtime() < since_usec:
                    if oldest_first:  # of a boot whose clock was behind; newer ones follow
                        continue
                    return
                try:
                    yield reader._get_all()
                except (OSError, ValueError):  # a damaged entry: the others are still good
                    found.corrupt += 1
        except OSError as error:
            raise HistoryUnavailable(f"The journal cannot be read: {error.strerror}.") from error
        finally:
            reader.close()

    def _open(self, kinds: tuple[Kind, ...], matches: tuple[str, ...]) -> Any:
        try:
            from systemd import journal  # optional, and large
        except ImportError as error:
            raise HistoryUnavailable("The journal cannot be read: python3-systemd is missing.") from error
        try:
            if self._directory is None:
                reader = journal._Reader(flags=journal.LOCAL_ONLY | journal.SYSTEM)
            else:
                reader = journal._Reader(flags=0, path=str(self._directory))
        except OSError as error:
            raise HistoryUnavailable(f"The journal cannot be opened: {error.strerror}.") from error
        reader.data_threshold = 0
        for origin in (
            (f"_SYSTEMD_UNIT={self._unit}",),
            ("_UID=0", f"_EXE={Path('/proc/self/exe').resolve()}"),
        ):
            for match in (*(f"MESSAGE_ID={kind}" for kind in kinds), *origin, *matches):
                reader.add_match(match)
            reader.add_disjunction()
        return reader
