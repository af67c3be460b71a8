"""blame, from the real journal alone: no service runs, and none is asked."""

from __future__ import annotations

import json
import shlex

import pytest

from tests.journald import python, under_journald

pytestmark = pytest.mark.native

WRITE = """
import time
from dataclasses import replace
from logindguard.model import Way
from logindguard.record.journal import Journal
from tests.unit.test_history import RECORD
from tests.unit.test_journal import ended
journal = Journal()
for number, uid, service in ((1, 61001, "sshd"), (2, 61001, "sshd"), (3, 61001, "su"), (4, 61002, "cron")):
    record = replace(
        RECORD,
        id=f"{number:032x}",
        way=Way.AFTER,
        realtime_usec=time.time_ns() // 1000,
        dying_before=1,
        writes=1,
        target=f"/user.slice/user-{uid}.slice",
        teardowns=(ended(number, uid, service),),
    )
    journal.record(record)
time.sleep(0.5)  # journald looks in /proc who sent an entry, when it reads it
"""


@pytest.mark.parametrize(
    ("by", "teardowns"),
    [
        ("unit", {"session-*.scope": 4}),
        ("user", {"61001": 3, "61002": 1}),
        ("trigger", {"ssh login": 2, "su": 1, "cron job": 1}),
        ("slice", {"/user.slice/user-61001.slice": 3, "/user.slice/user-61002.slice": 1}),
    ],
)
def test_teardowns_by_owner(by: str, teardowns: dict[str, int]) -> None:
    reader = ["env", "DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nowhere"]
    reader += ["/usr/bin/python3", "-B", "-m", "logindguard.ctl", "blame", f"--by={by}", "--json=short"]
    told = json.loads(under_journald(shlex.join(python(WRITE)), reader))
    key = "uid" if by == "user" else by
    assert {str(row.get(key, "")): row["teardowns"] for row in told if row["teardowns"]} == teardowns
    assert {str(row.get(key, "")): row["reclaimed"] for row in told if row["teardowns"]} == teardowns
