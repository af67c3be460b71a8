"""Our values as D-Bus dictionaries (a{sv}): one place, derived from the fields of the dataclasses.

What a record says is the same everywhere: its keys are the field names. A field that is None is left
out. Integers are t, or x where they are negative; text that is no UTF-8 is escaped, as a D-Bus string
has to be UTF-8 without NUL.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from dbus_next import Variant

from ..model import ReclaimRecord

Row = dict[str, Variant]

_UINT64_MAX = (1 << 64) - 1
_INT64_MIN = -(1 << 63)


def row(value: Any) -> Row:
    """A dataclass, or a mapping, as a{sv}; rows inside it become aa{sv}, mappings of text a{ss}."""
    if not isinstance(value, Mapping):
        value = {item.name: getattr(value, item.name) for item in fields(value)}
    return {name: _variant(item) for name, item in value.items() if item is not None}


def rows(values: Iterable[Any]) -> list[Row]:
    """Dataclasses or mappings as aa{sv}."""
    return [row(value) for value in values]


def text(value: str) -> str:
    return value.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


def _variant(value: object) -> Variant:
    match value:
        case bool():
            return Variant("b", value)
        case int():
            number = max(_INT64_MIN, min(_UINT64_MAX, value))
            return Variant("t" if number >= 0 else "x", number)
        case float():
            return Variant("d", value)
        case str():
            return Variant("s", text(value))
        case Mapping():
            return Variant("a{ss}", {text(str(name)): text(str(item)) for name, item in value.items()})
        case tuple() | list() if all(isinstance(item, str) for item in value) and value:
            return Variant("as", [text(item) for item in value])
        case tuple() | list():
            return Variant("aa{sv}", rows(value))
        case _:
            raise TypeError(f"no D-Bus form for {value!r}")


def broadcast(record: ReclaimRecord) -> Row:
    """What anybody may hear of a record: no user, session, unit or command, and no path below a slice."""
    return row(
        {
            "id": record.id,
            "way": record.way,
            "outcome": record.outcome,
            "unit_class": unit_class(record),
            "slice": top_slice(record.target),
            "dying_before": record.dying_before,
            "dying_after": record.dying_after,
            "freed_bytes": record.freed_bytes,
            "stolen_pages": record.stolen_pages,
        }
    )


def unit_class(record: ReclaimRecord) -> str:
    """What kind of unit a record is about: that of its teardowns where they agree, else of its target."""
    classes = {_class_of(teardown.unit) for teardown in record.teardowns}
    if len(classes) == 1:
        return classes.pop()
    return _class_of(record.target.rpartition("/")[2])


def _class_of(unit: str) -> str:
    name, _, suffix = unit.rpartition(".")
    if suffix == "scope":
        return "session" if name.startswith("session-") else "scope"
    if suffix == "service":
        if name.startswith("user@"):
            return "user-manager"
        return "cron" if name.startswith("cron") else "service"
    return "slice"


def top_slice(path: str) -> str:
    """The first component of a cgroup path: "/user.slice"; "/" of the root."""
    return "/" + path.strip("/").partition("/")[0]
