"""blame, from the real journal with no service about, and from the real daemon's records."""

from __future__ import annotations

import json
import shlex
import time

import pytest

from logindguard.blame import Blame
from logindguard.kernel.cgroupfs import detect
from logindguard.owners import By, owner_by, stranger_by
from logindguard.record.entry import from_fields
from logindguard.record.history import RECORDS
from tests.journald import python, under_journald
from tests.native.launcher import DEADLINE_SEC, Launcher, Run

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


EXPECTED = {
    "unit": {"session-*.scope": 4},
    "user": {"61001": 3, "61002": 1},
    "trigger": {"ssh login": 2, "su": 1, "cron job": 1},
    "slice": {"/user.slice/user-61001.slice": 3, "/user.slice/user-61002.slice": 1},
}


def test_teardowns_by_owner() -> None:
    command = "/usr/bin/python3 -B -m logindguard.ctl blame --json=short --by="
    script = f"export DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nowhere; for by in $0 $*; do {command}$by; done"
    told = under_journald(shlex.join(python(WRITE)), ["sh", "-c", script, *EXPECTED])
    for (by, teardowns), line in zip(EXPECTED.items(), told.splitlines(), strict=True):
        key = "uid" if by == "user" else by
        rows = {str(row[key]): row for row in json.loads(line) if row["teardowns"]}
        assert {owner: row["teardowns"] for owner, row in rows.items()} == teardowns
        assert {owner: row["reclaimed"] for owner, row in rows.items()} == teardowns


ENDS = (  # slice, unit, how often
    ("user-61001.slice", "session-{}.scope", 12),
    ("user-61002.slice", "session-{}.scope", 5),
    ("system.slice", "cron-{}.service", 4),
)


def test_teardowns_of_the_real_daemon_are_booked_exactly(launcher: Launcher, root: str) -> None:
    """Two users who log in at different rates, and cron jobs, as the cgroup tree alone tells them."""
    hierarchy = detect()
    assert hierarchy is not None
    top = hierarchy.mount / root.strip("/")
    slices = [top / name for name, _, _ in ENDS]
    for slice_ in slices:
        slice_.mkdir()
    try:
        run = launcher.start("--json", "--bus-address", "unix:path=/nonexistent/bus")
        run.wait_told("READY=1")
        for at in range(max(count for _, _, count in ENDS)):
            for slice_, (_, unit, count) in zip(slices, ENDS, strict=True):
                if at < count:
                    cgroup = slice_ / unit.format(f"{slice_.name[5:10]}{at}")
                    cgroup.mkdir()
                    cgroup.rmdir()
        deadline = time.monotonic() + DEADLINE_SEC
        while sum(accounts(run, By.USER).values()) < sum(count for _, _, count in ENDS):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert accounts(run, By.USER) == {"61001": 12, "61002": 5, "system": 4}
        assert accounts(run, By.TRIGGER) == {"login": 17, "cron job": 4}
        assert accounts(run, By.SLICE) == {f"{root}/{name}": count for name, _, count in ENDS}
        assert run.end()[0] == 0
    finally:
        for slice_ in slices:
            slice_.rmdir()


def accounts(run: Run, by: By) -> dict[str, int]:
    blame = Blame(owner_by(by), stranger_by(by))
    records = [from_fields(entry) for entry in run.entries if entry.get("MESSAGE_ID") in RECORDS]
    for record in records:
        blame.book(record)
    return {owner: account.teardowns for owner, account in blame.accounts.items() if account.teardowns}
