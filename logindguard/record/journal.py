"""Tells the journal what the guard did: one structured entry a record, one for each change of state.

Each kind has a MESSAGE_ID, explained in units/logindguard.catalog. Sending may wait for a
journald that is behind, as every service's log line may.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from enum import StrEnum
from typing import TextIO

from ..config_file import ConfigError
from ..model import SOURCE_WORDS, Mode, Outcome, ReclaimRecord, Sample, Source, Way
from ..text import counted, joined, printable, size, span
from .entry import SOURCES, BadEntry, from_fields, subjects, to_fields
from .log import Field, setup_logging, to_journal, to_json, to_stderr
from .repeats import Repeats
from .samples import sample_fields
from .sentence import sentence
from .users import Users

__all__ = ["BadEntry", "Journal", "Kind", "from_fields", "sentence", "setup_logging", "to_fields"]

# sd_journal_sendv(3) takes two of the kernel's 1,024 iovecs for a field, and fails beyond: 512 fields in all.
MAX_REPEATED = 140  # values of each of the three fields that may repeat; LOGINDGUARD_TEARDOWNS has them all

ERROR, WARNING, NOTICE, INFO, DEBUG = 3, 4, 5, 6, 7  # syslog(3)

log = logging.getLogger(__name__)


class Kind(StrEnum):
    """What an entry is about: its MESSAGE_ID. Never change one, tools match on them."""

    RECLAIMED = "d40e853ac6ec47289e16211edac90f85"
    SKIPPED = "6fd3757b0fce45c886d517f67accabcc"
    FAILED = "5944cc5a45bd4543abdff73bebc2d98e"
    SWEEP_PAUSED = "e7ca610dd31e4deb8f8451434753afc7"
    SWEEP_RESUMED = "45ea4c8392e2487389c81f611a889340"
    MODE = "e885d0ec4a8149fbb44be4bd3150d1b1"
    SOURCES = "37b164b460414d34ba89a9d186996ccf"
    FORECAST = "d79e8eff37e4499799e5d38ef1766727"
    RESTORED = "3abec4fb716541eca216f6a30ff08308"
    CONFIG_ERROR = "21f95416156c46eb970ce7dee28e995b"
    SAMPLE = "c8fdd365b560478897382e98a6c06ba5"
    PAUSED = "819f0fa5561e499db29c8f9e00978ad5"
    RESUMED = "e5d875abf24243968a967b4be5401052"


class Journal:
    """Entries go to journald, or as lines to stderr where that does not listen or is not `wanted`.

    `json_lines` gets all of them too.
    """

    def __init__(self, *, wanted: bool = True, json_lines: TextIO | None = None) -> None:
        self._users = Users()
        self._repeats = Repeats()
        self._wanted = wanted
        self._json_lines = json_lines

    def record(self, record: ReclaimRecord) -> None:
        """One entry for the group; at debug level one more for each of its units."""
        names = self._users.names()
        entry = list(to_fields(record, names).items())
        # A field may repeat, so that a match on any session or unit of the group finds it.
        entry += [
            (name, value)
            for name, all_of in subjects(record, names).items()
            for value in all_of[1:MAX_REPEATED]
        ]
        priority = priority_of(record)
        if priority == WARNING and self._repeats.told("failed", f"{record.target}: {record.reason}"):
            priority = DEBUG  # the same again: for `history`, not for those who watch
        self._send(kind_of(record), priority, sentence(record, names), *entry)
        if log.isEnabledFor(logging.DEBUG):
            for teardown in record.teardowns:
                told = (
                    f"{teardown.unit}: {teardown.phase} as {teardown.source} told, "
                    f"cgroup {teardown.path} inode {teardown.inode}, in record {record.id}"
                )
                self._send(None, DEBUG, told, ("UNIT", teardown.unit), ("LOGINDGUARD_RECORD_ID", record.id))

    def paused(self, reason: str) -> None:
        """The sweep waits for `reason`, or goes on where that is empty."""
        if reason:
            message = f"The sweep is paused: {reason}"
            self._send(Kind.SWEEP_PAUSED, INFO, message, ("LOGINDGUARD_REASON", reason))
        else:
            self._send(Kind.SWEEP_RESUMED, INFO, "The sweep goes on")

    def held(self, reason: str) -> None:
        """No reclaim of any way is begun for `reason`, or they go on where that is empty."""
        if reason:
            self._send(
                Kind.PAUSED, WARNING, f"Nothing is reclaimed: {reason}", ("LOGINDGUARD_REASON", reason)
            )
        else:
            self._send(Kind.RESUMED, INFO, "Reclaims go on: the pause has ended")

    def mode(self, mode: Mode, reason: str) -> None:
        """The mode at the start, or a change of it."""
        means = {
            Mode.PRECISE: "nothing live is reclaimed",
            Mode.SHARED: "live cgroups beside dying ones cannot be shielded",
            Mode.OBSERVE: "nothing is reclaimed",
        }
        message = f"Mode {mode}, {means[mode]}: {reason}"
        priority = INFO if mode is Mode.PRECISE else NOTICE
        entry: tuple[Field, ...] = (("LOGINDGUARD_MODE", mode), ("LOGINDGUARD_REASON", reason))
        self._send(Kind.MODE, priority, message, *entry)

    def sources(self, telling: Sequence[Source], why: str) -> None:
        """Who tells of teardowns, at the start and after each change; `why` the others do not."""
        words = [SOURCE_WORDS[source] for source in telling]
        alone = " alone" if len(words) == 1 else ""
        message = f"Teardowns are told by {joined(words)}{alone}{f'; {why}' if why else ''}"
        entry: tuple[Field, ...] = ((SOURCES, " ".join(telling)), ("LOGINDGUARD_REASON", why))
        self._send(Kind.SOURCES, NOTICE if why else INFO, message, *entry)

    def forecast(self, dying: int, duration_usec: int) -> None:
        """A first pass found many; `duration_usec` is how long they will take."""
        message = (
            f"Found {counted(dying, 'dying memcg')} at the start: they will be released "
            f"little by little, which takes about {span(duration_usec)}"
        )
        entry: tuple[Field, ...] = (
            ("LOGINDGUARD_DYING_BEFORE", dying),
            ("LOGINDGUARD_FORECAST_USEC", duration_usec),
        )
        self._send(Kind.FORECAST, NOTICE, message, *entry)

    def sample(self, sample: Sample) -> None:
        """How things stand, at debug level: it is for `report`, and says nothing that happened."""
        message = f"{counted(sample.dying, 'dying memcg')}, {size(sample.residue_bytes)} of page cache"
        self._send(Kind.SAMPLE, DEBUG, message, *sample_fields(sample).items())

    def restored(self, what: str) -> None:
        """A run that was killed had left memory.min raised; `what` says how many were put back."""
        self._send(Kind.RESTORED, NOTICE, f"Put back memory.min after a run that was killed: {what}")

    def config_error(self, error: ConfigError | str) -> None:
        """Settings that were read again are wrong; the old ones hold."""
        entry: list[Field] = []
        if isinstance(error, ConfigError):
            entry.append(("LOGINDGUARD_CONFIG_FILE", str(error.file)))
            if error.line is not None:
                entry.append(("LOGINDGUARD_CONFIG_LINE", error.line))
            if error.key is not None:
                entry.append(("LOGINDGUARD_CONFIG_KEY", error.key))
        self._send(Kind.CONFIG_ERROR, ERROR, f"The settings stay as they were: {error}", *entry)

    def _send(self, kind: Kind | None, priority: int, message: str, *entry: Field) -> None:
        head: list[Field] = [("MESSAGE", printable(message)), ("PRIORITY", priority)]
        if kind is not None:
            head.append(("MESSAGE_ID", kind))
        fields = [*head, *entry]
        if self._json_lines is not None:
            to_json(fields, self._json_lines)
        if not (self._wanted and to_journal(fields)):
            to_stderr(priority, message)


def kind_of(record: ReclaimRecord) -> Kind:
    match record.outcome:
        case Outcome.SKIPPED:
            return Kind.SKIPPED
        case Outcome.FAILED:
            return Kind.FAILED
        case _:
            return Kind.RECLAIMED


def priority_of(record: ReclaimRecord) -> int:
    """Info, but for what somebody should look at, and for retries of the sweep that changed nothing."""
    if record.outcome is Outcome.FAILED:
        return WARNING
    if record.stolen_pages and record.mode is Mode.PRECISE:
        return NOTICE  # the promise is 0
    if record.way is Way.SWEEP and record.outcome in (Outcome.SKIPPED, Outcome.UNCHANGED):
        return DEBUG
    return INFO
