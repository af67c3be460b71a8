"""A record as the fields of a journal entry, and back: the journal is also the history.

Numbers and paths stand in LOGINDGUARD_ fields of their own, to be matched with journalctl; the
teardowns are one field of JSON, because a journal entry has no nesting.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from enum import StrEnum
from functools import lru_cache
from typing import Any

from ..model import UNNAMED, Booking, Mode, Outcome, Phase, ReclaimRecord, Source, Teardown, Way

PREFIX = "LOGINDGUARD_"
TEARDOWNS = f"{PREFIX}TEARDOWNS"
SOURCES = f"{PREFIX}SOURCES"
CONTEXT = f"{PREFIX}CONTEXT_"
_JSON = json.JSONDecoder()

Parser = Callable[[Any], Any]
"""Takes str, bytes or int; ValueError for what it cannot be."""


def _text(value: object) -> str:
    """What was sent, bytes of a path that is no UTF-8 included."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


_known_text = lru_cache(maxsize=1024)(_text)
"""Of targets, reasons and their like, of which 100,000 records have few."""


class _Members(dict[Any, Any]):
    """Of an enumeration, by str and bytes: one lookup, since a history has 100,000 records."""

    def __init__(self, of: type[StrEnum]) -> None:
        super().__init__({form: member for member in of for form in (str(member), str(member).encode())})
        self._of = of

    def __missing__(self, value: object) -> StrEnum:
        """Raises the ValueError of the enumeration, which names the value."""
        return self._of(_text(value))


_PARSERS: dict[str, Parser] = {
    "str": _known_text,
    "int": int,
    **{of.__name__: _Members(of).__getitem__ for of in (Way, Outcome, Mode)},
}
_NAMES = {"id": "RECORD_ID", "residue_before_bytes": "RESIDUE_BYTES"}
# Attribute -> (field, type, whether it may be absent), from the record itself: what is added there is told.
_SCALARS = {
    item.name: (
        PREFIX + _NAMES.get(item.name, item.name.upper()),
        _PARSERS[str(item.type).removesuffix(" | None")],
        str(item.type).endswith(" | None"),
    )
    for item in fields(ReclaimRecord)
    if item.name not in ("teardowns", "context")
}
_FIELDS = [(name, attribute, parse) for attribute, (name, parse, _) in _SCALARS.items()]
_BOOKED = [_SCALARS[attribute][:2] for attribute in Booking._fields if attribute in _SCALARS]
_UNNAMED = CONTEXT + UNNAMED.upper()
_TEARDOWN = {  # type in JSON
    item.name: int if str(item.type).startswith("int") else str for item in fields(Teardown)
}
_PHASE, _SOURCE = _Members(Phase), _Members(Source)


class BadEntry(ValueError):
    """A journal entry that is no record; the sentence names the field."""


def subjects(record: ReclaimRecord, names: Mapping[int, str]) -> dict[str, list[str]]:
    """UNIT, SESSION_ID and USER_ID of all teardowns, each value once, in the order heard.

    USER_ID is the user's name, as logind itself logs it, or the uid where `names` has none.
    """
    found: dict[str, dict[str, None]] = {"UNIT": {}, "SESSION_ID": {}, "USER_ID": {}}
    for teardown in record.teardowns:
        user = None if teardown.uid is None else names.get(teardown.uid, str(teardown.uid))
        for name, value in (("UNIT", teardown.unit), ("SESSION_ID", teardown.session_id), ("USER_ID", user)):
            if value is not None:
                found[name][value] = None
    return {name: list(values) for name, values in found.items()}


def to_fields(record: ReclaimRecord, names: Mapping[int, str] | None = None) -> dict[str, str | int]:
    """The entry without MESSAGE, PRIORITY and MESSAGE_ID.

    UNIT, SESSION_ID and USER_ID are those of the first teardown; the journal writer repeats the
    fields for the others. `names` maps uid to user name. Context keys become upper-case field names.
    """
    entry: dict[str, str | int] = {}
    for attribute, (name, _, _) in _SCALARS.items():
        value = getattr(record, attribute)
        if value is not None:
            entry[name] = value if isinstance(value, int) else str(value)
    entry[SOURCES] = " ".join(record.sources)
    of = subjects(record, names or {})
    if of["UNIT"]:
        entry[f"{PREFIX}UNITS"] = " ".join(of["UNIT"])
    entry |= {name: values[0] for name, values in of.items() if values}
    told = [{k: v for k, v in asdict(teardown).items() if v is not None} for teardown in record.teardowns]
    entry[TEARDOWNS] = json.dumps(told, separators=(",", ":"))
    for key, text in record.context.items():
        # 64 characters is what journald takes for a name (journal_field_valid).
        entry[(CONTEXT + re.sub(r"[^A-Z0-9_]", "_", key.upper()))[:64]] = text
    return entry


def from_fields(entry: Mapping[str, object]) -> ReclaimRecord:
    """The record of a journal entry whose values are str, bytes or int. BadEntry when it is none.

    Anybody may send such fields: trust only entries that journald says come from this service.
    Read with the data threshold off, since a long list of teardowns is cut otherwise.
    """
    get = entry.get
    try:
        values: dict[str, Any] = {
            attribute: parse(value) for name, attribute, parse in _FIELDS if (value := get(name)) is not None
        }
    except ValueError as error:
        raise BadEntry(_invalid(entry)) from error
    context = {}
    if CONTEXT in " ".join(entry):  # most have none
        context = {
            name.removeprefix(CONTEXT).lower(): _text(value)
            for name, value in entry.items()
            if name.startswith(CONTEXT)
        }
    values["teardowns"] = _teardowns(get(TEARDOWNS, "[]"))
    values["context"] = context
    try:
        return ReclaimRecord(**values)
    except TypeError as error:
        missing = next(name for name, attribute, _ in _FIELDS if attribute not in values)
        raise BadEntry(f"{missing} is missing") from error


def booking_of(entry: Mapping[str, Any]) -> Booking:
    """The same of less. BadEntry when it is none."""
    try:
        scalars: list[Any] = [parse(entry[name]) for name, parse in _BOOKED]
        unnamed = int(entry.get(_UNNAMED, 0))
    except KeyError as error:
        raise BadEntry(f"{error.args[0]} is missing") from error
    except ValueError as error:
        raise BadEntry(_invalid(entry)) from error
    return Booking._make([*scalars, _teardowns(entry.get(TEARDOWNS, "[]")), unnamed])


def _invalid(entry: Mapping[str, object]) -> str:
    """The first field that cannot be parsed, in a sentence."""
    for name, _, parse in _FIELDS:
        try:
            if name in entry:
                parse(entry[name])
        except ValueError as error:
            return f"{name} has no valid value: {error}"
    return "it has a field of no valid value"


def _teardowns(value: object) -> tuple[Teardown, ...]:
    try:
        text = _text(value)
        told, end = _JSON.raw_decode(text)
        if end != len(text):
            raise ValueError(f"more after character {end}")
        return tuple(map(_teardown, told))
    except (ValueError, TypeError, RecursionError) as error:
        raise BadEntry(f"{TEARDOWNS} has no valid value: {error}") from error


def _teardown(item: dict[str, Any]) -> Teardown:
    if type(item) is not dict:
        raise TypeError(f"not an object: {item!r}")
    if [*map(type, item.values())] != [*map(_TEARDOWN.get, item)]:
        item = _checked(item)
    if "phase" in item and "source" in item:
        item["phase"], item["source"] = _PHASE[item["phase"]], _SOURCE[item["source"]]
    return Teardown(**item)  # a TypeError names what is missing


def _checked(item: dict[str, Any]) -> dict[str, Any]:
    """Without what a later version says more. Raises TypeError, which names what is wrong."""
    known = {name: value for name, value in item.items() if name in _TEARDOWN and value is not None}
    for name, value in known.items():
        if type(value) is not _TEARDOWN[name]:  # a bool is an int
            raise TypeError(f"{name} is {value!r}")
    return known
