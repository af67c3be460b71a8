"""Journal entries: what they say, that they read back, and that no name can forge one."""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest

from logindguard.guard import MAX_NAMED
from logindguard.model import UNNAMED, Booking, Mode, Outcome, Phase, ReclaimRecord, Source, Teardown, Way
from logindguard.record import log
from logindguard.record.entry import booking_of
from logindguard.record.journal import (
    MAX_REPEATED,
    BadEntry,
    Journal,
    Kind,
    from_fields,
    kind_of,
    priority_of,
    sentence,
    to_fields,
)
from logindguard.record.users import Users
from tests.journald import python, under_journald

TOP = Path(__file__).parents[2]
CATALOG = TOP / "units" / "logindguard.catalog"
NAMES = {1000: "alice", 1001: "bob", 1002: "carol", 1003: "dave"}


def ended(number: int, uid: int | None = 1000, service: str | None = "sshd") -> Teardown:
    return Teardown(
        unit=f"session-{number}.scope",
        path=f"/user.slice/user-{uid}.slice/session-{number}.scope",
        inode=2**40 + number,
        phase=Phase.ENDED,
        source=Source.SYSTEMD1,
        heard_usec=10**12 + number,
        session_id=str(number),
        uid=uid,
        service=service,
    )


UNIT = replace(ended(9), unit="cron-a\\x2db.service", session_id=None, uid=None, service=None)

RECORD = ReclaimRecord(
    id="0123456789abcdef",
    realtime_usec=1_700_000_000_000_000,
    way=Way.AFTER,
    target="/user.slice",
    target_inode=77,
    outcome=Outcome.RELEASED,
    reason="nothing dying is left here",
    mode=Mode.PRECISE,
    teardowns=(ended(4), ended(5, 1001), ended(6)),
    dying_before=15,
    dying_after=0,
    residue_before_bytes=13 << 20,
    freed_bytes=(12 << 20) + (1 << 19),
    writes=3,
    shielded=2,
    cpu_usec=1500,
    wall_usec=4000,
    longest_write_usec=900,
    release_usec=350_000,
    context={"trigger": "logout", "kernel_release": "6.1\nPRIORITY=0"},
)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {},
            "user.slice: released 12.5M of page cache of 3 ended sessions (alice, bob), "
            "dying memcgs 15 -> 0, nothing live touched",
        ),
        (
            {"teardowns": tuple(ended(n, 999 + n) for n in range(1, 15))},
            "user.slice: released 12.5M of page cache of 14 ended sessions (alice, bob, carol…), "
            "dying memcgs 15 -> 0, nothing live touched",
        ),
        (
            {"teardowns": (ended(4, 1077), UNIT)},
            "user.slice: released 12.5M of page cache of 2 ended units (uid 1077), "
            "dying memcgs 15 -> 0, nothing live touched",
        ),
        (
            {"teardowns": (ended(4),), "freed_bytes": 0, "dying_before": 1},
            "user.slice: nothing is left of session 4 (alice, sshd), "
            "dying memcgs 1 -> 0, nothing live touched",
        ),
        (
            {"teardowns": (UNIT,), "target": "/system.slice/cron.slice", "way": Way.BEFORE},
            "system.slice/cron.slice: released 12.5M of page cache of cron-a\\x2db.service "
            "before its removal",
        ),
        (
            {"teardowns": (), "way": Way.SWEEP, "target": "/", "stolen_pages": 1},
            "/: released 12.5M of page cache of dying memcgs, dying memcgs 15 -> 0, "
            "live cgroups lost at most 1 page",
        ),
        (
            {
                "mode": Mode.SHARED,
                "outcome": Outcome.PARTIAL,
                "dying_after": 2,
                "reason": "the rest is dirty",
            },
            "user.slice: released 12.5M of page cache of 3 ended sessions (alice, bob), "
            "dying memcgs of the whole machine 15 -> 2, live cgroups lost at most 0 pages; the rest is dirty",
        ),
        (
            {"mode": Mode.SHARED, "way": Way.BEFORE, "teardowns": (ended(4),)},
            "user.slice: released 12.5M of page cache of session 4 (alice, sshd) before its removal",
        ),
        (
            {"outcome": Outcome.MAPPED_KEPT, "dying_after": 1, "mapped_kept_bytes": 40 << 20},
            "user.slice: released 12.5M of page cache of 3 ended sessions (alice, bob), "
            "dying memcgs 15 -> 1, nothing live touched; kept 40M that live processes map",
        ),
        (
            {"outcome": Outcome.UNCHANGED, "dying_after": 15, "reason": "the rest waits for writeback"},
            "user.slice: could release nothing of 3 ended sessions (alice, bob), "
            "dying memcgs 15 -> 15; the rest waits for writeback",
        ),
        (
            {"outcome": Outcome.SKIPPED, "dying_after": 15, "reason": "the host is under memory pressure"},
            "user.slice: left 3 ended sessions (alice, bob) alone, "
            "dying memcgs 15 -> 15; the host is under memory pressure",
        ),
        (
            {"outcome": Outcome.SKIPPED, "dying_before": 0},
            "user.slice: nothing dying is left of 3 ended sessions (alice, bob)",
        ),
        (
            {
                "outcome": Outcome.SKIPPED,
                "dying_before": 0,
                "target_inode": 0,
                "reason": "paused until later",
            },
            "user.slice: left 3 ended sessions (alice, bob) alone; paused until later",
        ),
        (
            {"outcome": Outcome.SKIPPED, "dying_before": 0, "way": Way.BEFORE, "reason": "no headroom"},
            "user.slice: left 3 ended sessions (alice, bob) alone; no headroom",
        ),
        (
            {"outcome": Outcome.GONE},
            "user.slice: was removed before the page cache of 3 ended sessions (alice, bob) was released",
        ),
        (
            {"outcome": Outcome.FAILED, "dying_after": 15, "reason": "EIO at memory.reclaim"},
            "user.slice: could not release the page cache of 3 ended sessions (alice, bob), "
            "dying memcgs 15 -> 15; EIO at memory.reclaim",
        ),
        (
            {
                "target": "/user.slice\n<0>forged",
                "teardowns": (replace(UNIT, unit="a\x1b[2J\nPRIORITY=0"),),
                "outcome": Outcome.GONE,
            },
            "user.slice\\n<0>forged: was removed before the page cache of "
            "a\\x1b[2J\\nPRIORITY=0 was released",
        ),
    ],
)
def test_sentences(changes: dict[str, object], expected: str) -> None:
    assert sentence(replace(RECORD, **changes), NAMES) == expected  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize("way", list(Way))
def test_every_outcome_has_a_sentence_a_kind_and_a_priority(outcome: Outcome, way: Way) -> None:
    record = replace(RECORD, outcome=outcome, way=way)
    assert sentence(record).startswith("user.slice: ")
    assert kind_of(record) in Kind
    assert priority_of(record) in (4, 6, 7)


def test_fields_can_be_matched() -> None:
    entry = to_fields(RECORD, NAMES)
    assert entry["UNIT"] == "session-4.scope"
    assert entry["SESSION_ID"] == "4"
    assert entry["USER_ID"] == "alice"
    assert entry["LOGINDGUARD_UNITS"] == "session-4.scope session-5.scope session-6.scope"
    assert entry["LOGINDGUARD_RECORD_ID"] == RECORD.id
    assert entry["LOGINDGUARD_RESIDUE_BYTES"] == 13 << 20
    assert entry["LOGINDGUARD_DYING_BEFORE"] == 15
    assert entry["LOGINDGUARD_WAY"] == "after"
    assert entry["LOGINDGUARD_CONTEXT_TRIGGER"] == "logout"
    assert all(len(name) <= 64 and name.replace("_", "").isalnum() and name.isupper() for name in entry)
    assert to_fields(RECORD)["USER_ID"] == "1000"
    assert "LOGINDGUARD_RELEASE_USEC" not in to_fields(replace(RECORD, release_usec=None))


STRANGE = replace(
    RECORD,
    target="/user.slice/a\nPRIORITY=0\udcff\\x2d",
    teardowns=(replace(UNIT, unit="a b\n\udcff", path="/\udcff"),),
    release_usec=None,
    context={},
)


@pytest.mark.parametrize("record", [RECORD, STRANGE, replace(RECORD, teardowns=(), way=Way.SWEEP)])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_an_entry_reads_back_as_the_record(record: ReclaimRecord, *, as_bytes: bool) -> None:
    entry: dict[str, object] = {"MESSAGE": "x", "_PID": 1, **to_fields(record, NAMES)}
    if as_bytes:
        entry = {name: str(value).encode("utf-8", "surrogateescape") for name, value in entry.items()}
    assert from_fields(entry) == record


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"LOGINDGUARD_RECORD_ID": None}, "LOGINDGUARD_RECORD_ID is missing"),
        ({"LOGINDGUARD_WRITES": "many"}, "LOGINDGUARD_WRITES has no valid value"),
        ({"LOGINDGUARD_OUTCOME": "eaten"}, "LOGINDGUARD_OUTCOME has no valid value: 'eaten'"),
        ({"LOGINDGUARD_TEARDOWNS": "["}, "LOGINDGUARD_TEARDOWNS has no valid value"),
        ({"LOGINDGUARD_TEARDOWNS": "3"}, "LOGINDGUARD_TEARDOWNS has no valid value"),
        ({"LOGINDGUARD_TEARDOWNS": "[3]"}, "LOGINDGUARD_TEARDOWNS has no valid value: not an object: 3"),
        (
            {"LOGINDGUARD_TEARDOWNS": "[{}]"},
            "LOGINDGUARD_TEARDOWNS has no valid value: Teardown.__init__() missing",
        ),
        ({"LOGINDGUARD_TEARDOWNS": "[" * 100_000}, "LOGINDGUARD_TEARDOWNS has no valid value"),
    ],
)
def test_what_is_no_record_is_refused(changes: dict[str, str | None], expected: str) -> None:
    entry = {name: value for name, value in (to_fields(RECORD) | changes).items() if value is not None}
    for read in (from_fields, booking_of):
        if "RECORD_ID" in expected and read is booking_of:
            continue  # which it does not have
        with pytest.raises(BadEntry) as caught:
            read(entry)
        assert str(caught.value).startswith(expected)


@pytest.mark.parametrize("record", [replace(RECORD, context={UNNAMED: "3"}), STRANGE])
def test_a_booking_says_the_same(record: ReclaimRecord) -> None:
    entry = {name: str(value).encode("utf-8", "surrogateescape") for name, value in to_fields(record).items()}
    booking = booking_of(entry)
    assert booking._asdict() == {name: getattr(record, name) for name in Booking._fields}


def test_all_of_a_record_is_told() -> None:
    told = {name.removeprefix("LOGINDGUARD_") for name in to_fields(RECORD)}
    renamed = {"ID": "RECORD_ID", "RESIDUE_BEFORE_BYTES": "RESIDUE_BYTES", "CONTEXT": "CONTEXT_TRIGGER"}
    for item in fields(ReclaimRecord):
        assert renamed.get(item.name.upper(), item.name.upper()) in told


def test_users_come_from_passwd_and_follow_it(tmp_path: Path) -> None:
    passwd = tmp_path / "passwd"
    users = Users(passwd)
    assert users.names() == {}
    passwd.write_text(
        "root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:\n+\n:x:5\nbad:x:x:\nalice:x:1000:1000::/:\n"
    )
    assert users.names() == {0: "root", 1000: "alice"}
    passwd.write_text("bob:x:1001:1001::/:\n")
    assert users.names() == {1001: "bob"}


# The way out


@pytest.fixture
def no_journald(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "JOURNAL_SOCKET", tmp_path / "socket")


@pytest.fixture
def as_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYSTEMD_EXEC_PID", str(os.getpid()))


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers.clear()
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("no_journald", "as_a_service")
def test_without_journald_lines_go_to_stderr(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal()
    journal.record(replace(STRANGE, outcome=Outcome.FAILED, reason="a\n<0>b"))
    journal.mode(Mode.OBSERVE, "the kernel reparents")
    journal.paused("memory pressure (12 % some)")
    journal.paused("")
    journal.held("paused by uid 1000 until it is resumed")
    journal.held("")
    journal.sources((Source.LOGIN1, Source.SYSTEMD1, Source.CGROUP_WATCH), "")
    journal.sources((Source.CGROUP_WATCH,), "no system bus (a\n<0>b)")
    journal.forecast(12_000, 182_000_000)
    journal.restored("3 cgroups")
    journal.config_error("FILE:3: roots expects\n<0>")
    assert capsys.readouterr().err == (
        "<4>user.slice/a\\nPRIORITY=0\\udcff\\x2d: could not release the page cache of a b\\n\\udcff, "
        "dying memcgs 15 -> 0; a\\n<0>b\n"
        "<5>Mode observe, nothing is reclaimed: the kernel reparents\n"
        "<6>The sweep is paused: memory pressure (12 % some)\n"
        "<6>The sweep goes on\n"
        "<4>Nothing is reclaimed: paused by uid 1000 until it is resumed\n"
        "<6>Reclaims go on: the pause has ended\n"
        "<6>Teardowns are told by logind, systemd and the cgroup tree\n"
        "<5>Teardowns are told by the cgroup tree alone; no system bus (a\\n<0>b)\n"
        "<5>Found 12000 dying memcgs at the start: they will be released little by little, "
        "which takes about 3min 2s\n"
        "<5>Put back memory.min after a run that was killed: 3 cgroups\n"
        "<3>The settings stay as they were: FILE:3: roots expects\\n<0>\n"
    )
    caplog.set_level(logging.DEBUG)
    journal.record(RECORD)
    lines = capsys.readouterr().err.splitlines()
    assert [line[:3] for line in lines] == ["<6>", "<7>", "<7>", "<7>"]
    assert lines[1] == (
        "<7>session-4.scope: ended as systemd1 told, cgroup /user.slice/user-1000.slice/session-4.scope "
        "inode 1099511627780, in record 0123456789abcdef"
    )


@pytest.mark.usefixtures("no_journald")
def test_a_closed_stderr_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    Journal().record(RECORD)


def test_entries_for_a_person_and_for_a_program(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing goes to journald behind the back of who started it at a terminal."""

    def sent(*_: object) -> bool:
        raise AssertionError("journald was told")

    monkeypatch.setattr("logindguard.record.journal.to_journal", sent)
    monkeypatch.delenv("SYSTEMD_EXEC_PID", raising=False)
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    for record in (RECORD, STRANGE):
        Journal(wanted=False, json_lines=sys.stdout).record(record)
    told = capsys.readouterr()
    assert told.err.splitlines()[0].startswith("user.slice: released 12.5M")
    entries = [json.loads(line) for line in told.out.splitlines()]
    assert [from_fields(entry) for entry in entries] == [RECORD, STRANGE]
    assert entries[0]["SESSION_ID"] == ["4", "5", "6"]
    assert entries[0]["MESSAGE_ID"] == Kind.RECLAIMED


def test_every_record_says_who_told_of_it() -> None:
    both = (ended(4), replace(ended(5), source=Source.CGROUP_WATCH), ended(6))
    assert to_fields(replace(RECORD, teardowns=both))["LOGINDGUARD_SOURCES"] == "systemd1 cgroup-watch"
    swept = replace(RECORD, teardowns=(), way=Way.SWEEP)
    assert to_fields(swept)["LOGINDGUARD_SOURCES"] == "sweep"


LOG_SOME = """
import logging
from logindguard.record.journal import setup_logging
setup_logging('info')
log = logging.getLogger('logindguard.some')
log.debug('unseen')
log.info('a %s', 'b\\n<0>c')
try:
    raise ValueError('x\\n<0>y')
except ValueError:
    log.exception('failed')
"""


def run_logging(environment: str, stderr: int) -> None:
    clean = {k: v for k, v in os.environ.items() if k not in ("SYSTEMD_EXEC_PID", "JOURNAL_STREAM")}
    command = ["sh", "-c", f'{environment} exec "$@"', "sh", sys.executable, "-c", LOG_SOME]
    subprocess.run(command, env=clean, stderr=stderr, check=True, cwd=TOP)


def read_all(descriptor: int) -> str:
    data = b""
    while True:
        try:
            part = os.read(descriptor, 65536)
        except OSError:  # EIO ends a pty
            break
        if not part:
            break
        data += part
    os.close(descriptor)
    return data.decode()


def test_log_lines_under_a_service_manager_carry_their_priority() -> None:
    reader, writer = os.pipe()
    run_logging("SYSTEMD_EXEC_PID=$$", writer)
    os.close(writer)
    lines = read_all(reader).splitlines()
    assert lines[0] == "<6>a b\\n<0>c"
    assert lines[1] == "<3>failed"
    assert lines[-2:] == ["<3>ValueError: x", "<3><0>y"]
    assert all(line.startswith("<3>") for line in lines[1:])


@pytest.mark.parametrize("environment", ["", "SYSTEMD_EXEC_PID=1 INVOCATION_ID=0 JOURNAL_STREAM=1:1"])
@pytest.mark.parametrize("through", [os.pipe, pty.openpty])
def test_log_lines_for_a_person_are_plain(environment: str, through: Callable[[], tuple[int, int]]) -> None:
    """Also where the shell runs in somebody's service, as the terminal of a desktop does."""
    reader, writer = through()
    run_logging(environment, writer)
    os.close(writer)
    lines = read_all(reader).splitlines()
    assert lines[:2] == ["a b\\n<0>c", "failed"]


def test_setup_logging_again_replaces_the_first(root_logger: logging.Logger) -> None:
    log.setup_logging("info")
    log.setup_logging("debug")
    assert len(root_logger.handlers) == 1
    assert root_logger.level == logging.DEBUG


JOURNALCTL = [
    *("journalctl", "-D", "/run/log/journal", "-o", "json", "--all", "--no-pager"),
    "SYSLOG_IDENTIFIER=logindguard",
]


def told_to_journald(program: str) -> list[dict[str, object]]:
    """The entries that a program's lines became; values that are no UTF-8 as bytes."""
    out = under_journald(shlex.join(python(program)), JOURNALCTL)
    entries = [json.loads(line) for line in out.splitlines()]
    for entry in entries:
        for name, value in entry.items():
            if isinstance(value, list) and all(isinstance(byte, int) for byte in value):
                entry[name] = bytes(value)
    return entries


@pytest.mark.native
def test_the_real_journald_takes_it_and_gives_it_back() -> None:
    program = f"""
import pickle
from logindguard.record.journal import Journal, setup_logging
setup_logging('debug')
for record in pickle.loads(bytes.fromhex('{pickle.dumps([RECORD, STRANGE]).hex()}')):
    Journal().record(record)
"""
    entries = told_to_journald(program)
    told = [entry for entry in entries if "LOGINDGUARD_OUTCOME" in entry]
    assert [from_fields(entry) for entry in told] == [RECORD, STRANGE]
    assert told[0]["UNIT"] == ["session-4.scope", "session-5.scope", "session-6.scope"]
    assert told[0]["SESSION_ID"] == ["4", "5", "6"]
    assert [entry["PRIORITY"] for entry in told] == ["6", "6"], "a unit's name forged a field"
    assert all(entry["MESSAGE_ID"] == Kind.RECLAIMED for entry in told)
    details = [entry for entry in entries if entry["PRIORITY"] == "7"]
    assert [entry["UNIT"] for entry in details] == [
        "session-4.scope",
        "session-5.scope",
        "session-6.scope",
        b"a b\n\xff",
    ]


@pytest.mark.native
def test_log_lines_reach_the_real_journald_when_stderr_is_its_stream() -> None:
    program = (
        "import os, sys; s = os.fstat(2); os.environ['JOURNAL_STREAM'] = f'{s.st_dev}:{s.st_ino}'\n"
        + LOG_SOME
    )
    entries = told_to_journald(program)
    assert [(entry["PRIORITY"], str(entry["MESSAGE"]).splitlines()[0]) for entry in entries] == [
        ("6", "a b\\n<0>c"),
        ("3", "failed"),
    ]
    assert str(entries[1]["MESSAGE"]).endswith("ValueError: x\n<0>y")
    assert entries[0]["LOGGER"] == "logindguard.some"


# The catalog


def catalog_entries() -> dict[str, str]:
    entries: dict[str, str] = {}
    for block in CATALOG.read_text().split("\n-- ")[1:]:
        head, _, text = block.partition("\n")
        entries[head.strip()] = text
    return entries


def test_each_kind_is_explained_and_no_other() -> None:
    entries = catalog_entries()
    assert set(entries) == {str(kind) for kind in Kind}
    for text in entries.values():
        assert text.startswith("Subject: ")
        assert "\nDefined-By: logindguard\n" in text


def test_the_catalog_names_only_fields_that_are_sent() -> None:
    sent = set(to_fields(RECORD, NAMES)) | {
        "LOGINDGUARD_FORECAST_USEC",
        "LOGINDGUARD_CONFIG_FILE",
        "LOGINDGUARD_CONFIG_LINE",
        "LOGINDGUARD_CONFIG_KEY",
        "LOGINDGUARD_DYING",
        "MESSAGE",
    }
    for text in catalog_entries().values():
        assert set(re.findall(r"@(\w+)@", text)) <= sent


def test_journalctl_takes_the_catalog(tmp_path: Path) -> None:
    place = tmp_path / "usr/lib/systemd/catalog"
    place.mkdir(parents=True)
    (place / CATALOG.name).write_text(CATALOG.read_text())
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    update = subprocess.run(
        ["journalctl", "--update-catalog", f"--root={tmp_path}"], capture_output=True, text=True, check=False
    )
    assert (update.returncode, update.stderr) == (0, "")
    database = tmp_path / "var/lib/systemd/catalog/database"
    assert database.stat().st_size > 500


@pytest.mark.native
def test_the_largest_record_is_not_dropped() -> None:
    teardowns = tuple(ended(number, uid=number) for number in range(MAX_NAMED))
    program = f"""
from dataclasses import replace
from logindguard.record.journal import Journal
from tests.unit.test_journal import RECORD, ended
teardowns = tuple(ended(number, uid=number) for number in range({MAX_NAMED}))
Journal().record(replace(RECORD, teardowns=teardowns))
"""
    [entry] = told_to_journald(program)
    assert from_fields(entry).teardowns == teardowns
    assert isinstance(entry["UNIT"], list)
    assert len(entry["UNIT"]) == MAX_REPEATED


def test_the_same_failure_again_is_for_the_history(capsys: pytest.CaptureFixture[str]) -> None:
    lines = io.StringIO()
    journal = Journal(wanted=False, json_lines=lines)
    for reason in ("the disk is gone", "the disk is gone", "something else"):
        journal.record(replace(RECORD, outcome=Outcome.FAILED, reason=reason))
    priorities = [json.loads(line)["PRIORITY"] for line in lines.getvalue().splitlines()]
    assert priorities == ["4", "7", "4"]
