"""A record as the fields of a journal entry, and back: the journal is also the history.

Numbers and paths stand in LOGINDGUARD_ fields of their own, to be matched with journalctl; the
teardowns are one field of JSON, because a journal entry has no nesting.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, fields
from enum import StrEnum
from typing import Any

from ..model import Mode, Outcome, Phase, ReclaimRecord, Source, Teardown, Way

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


def _member(of: type[StrEnum]) -> Parser:
    """One lookup instead of decoding and calling the enumeration: a history has 100,000 records."""
    known = {form: member for member in of for form in (str(member), str(member).encode())}
    return lambda value: known.get(value) or of(_text(value))


_PARSERS: dict[str, Parser] = {
    "str": _text,
    "int": int,
    **{of.__name__: _member(of) for of in (Way, Outcome, Mode, Phase, Source)},
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
_REQUIRED = frozenset(attribute for attribute, (_, _, optional) in _SCALARS.items() if not optional)
_MAY_BE_NONE = frozenset(item.name for item in fields(Teardown) if str(item.type).endswith("| None"))
_TEARDOWN: dict[str, tuple[type, Parser | None]] = {  # (type in JSON, parser where that is not all)
    item.name: (int, None)
    if str(item.type).startswith("int")
    else (str, None if str(item.type).startswith("str") else _PARSERS[str(item.type)])
    for item in fields(Teardown)
}


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
    values: dict[str, Any] = {}
    get = entry.get
    for name, attribute, parse in _FIELDS:
        value = get(name)
        if value is not None:
            try:
                values[attribute] = parse(value)
            except ValueError as error:
                raise BadEntry(f"{name} has no valid value: {error}") from error
    context = {}
    if CONTEXT in " ".join(entry):  # most have none
        context = {
            name.removeprefix(CONTEXT).lower(): _text(value)
            for name, value in entry.items()
            if name.startswith(CONTEXT)
        }
    if missing := _REQUIRED - values.keys():
        raise BadEntry(f"{_SCALARS[min(missing)][0]} is missing")
    values["teardowns"] = tuple(_teardowns(entry.get(TEARDOWNS, "[]")))
    values["context"] = context
    return ReclaimRecord(**values)


def _teardowns(value: object) -> Iterable[Teardown]:
    try:
        told = _JSON.decode(_text(value))
        return [_teardown(item) for item in told]
    except (ValueError, TypeError, RecursionError) as error:
        raise BadEntry(f"{TEARDOWNS} has no valid value: {error}") from error


def _teardown(item: object) -> Teardown:
    if not isinstance(item, dict):
        raise TypeError(f"not an object: {item!r}")
    values: dict[str, Any] = {}
    for name, value in item.items():
        kind, parse = _TEARDOWN.get(name, (None, None))
        if kind is None or (value is None and name in _MAY_BE_NONE):
            continue  # a later version's, or none
        if type(value) is not kind:  # a bool is an int
            raise TypeError(f"{name} is {value!r}")
        values[name] = parse(value) if parse else value
    return Teardown(**values)  # a TypeError names what is missing
