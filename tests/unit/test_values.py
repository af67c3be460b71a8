"""Our values as D-Bus dictionaries, and what anybody may hear of a record."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from logindguard.dbus.values import broadcast, row, rows, top_slice, unit_class
from logindguard.model import Mode, ReclaimRecord
from tests.unit.test_journal import RECORD, ended


@dataclass(frozen=True)
class Thing:
    size_bytes: int
    nothing: str | None = None


@pytest.mark.parametrize(
    ("value", "signature", "told"),
    [
        (True, "b", True),
        (7, "t", 7),
        (-7, "x", -7),
        (1 << 80, "t", (1 << 64) - 1),
        (-(1 << 80), "x", -(1 << 63)),
        (0.5, "d", 0.5),
        ("a\0\udcff", "s", "a\\x00\\udcff"),
        (Mode.PRECISE, "s", "precise"),
        ({"a": "b\0"}, "a{ss}", {"a": "b\\x00"}),
        (("a", "b"), "as", ["a", "b"]),
        ([], "aa{sv}", []),
    ],
)
def test_forms(value: object, signature: str, told: object) -> None:
    found = row({"value": value, "left_out": None})
    assert {*found} == {"value"}
    assert (found["value"].signature, found["value"].value) == (signature, told)


def test_what_has_fields_is_a_row() -> None:
    [told] = rows([Thing(3)])
    assert {name: each.value for name, each in told.items()} == {"size_bytes": 3}
    inside = row({"things": [Thing(3)]})["things"]
    assert inside.signature == "aa{sv}"
    with pytest.raises(TypeError, match="no D-Bus form"):
        row({"value": object()})


def record(target: str, *units: str) -> ReclaimRecord:
    teardowns = tuple(replace(ended(number), unit=unit) for number, unit in enumerate(units))
    return replace(RECORD, target=target, teardowns=teardowns)


@pytest.mark.parametrize(
    ("target", "units", "told"),
    [
        ("/user.slice/user-1.slice", ("session-1.scope", "session-c2.scope"), "session"),
        ("/user.slice/user-1.slice", ("session-1.scope", "user@1.service"), "slice"),
        ("/user.slice/user-1.slice", ("user@1.service",), "user-manager"),
        ("/system.slice", ("cron.service",), "cron"),
        ("/system.slice", ("ssh.service",), "service"),
        ("/system.slice", ("run-1.scope",), "scope"),
        ("/system.slice/cron.service", (), "cron"),
        ("/", (), "slice"),
    ],
)
def test_what_kind_of_unit_a_record_is_about(target: str, units: tuple[str, ...], told: str) -> None:
    assert unit_class(record(target, *units)) == told


def test_nobody_is_named_to_all() -> None:
    assert top_slice("/") == "/"
    told = {name: each.value for name, each in broadcast(RECORD).items()}
    assert told["slice"] == "/user.slice"
    said = " ".join(map(str, told.values()))
    for teardown in RECORD.teardowns:
        assert teardown.unit not in said
        assert teardown.path not in said
