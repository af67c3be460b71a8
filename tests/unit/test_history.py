"""Records read back from a real journal: only ours, in order, bounded, and fast."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from logindguard.model import Mode, Outcome, ReclaimRecord, Way
from logindguard.record.entry import to_fields
from logindguard.record.history import History, HistoryUnavailable
from logindguard.record.journal import Kind
from tests.conftest import Tell
from tests.journald import python, under_journald

RECORD = ReclaimRecord(
    id="0" * 32,
    realtime_usec=0,
    way=Way.SWEEP,
    target="/user.slice",
    target_inode=7,
    outcome=Outcome.RELEASED,
    reason="nothing dying is left here",
    mode=Mode.PRECISE,
    freed_bytes=4096,
)
FAR_USEC = [1, 1 << 54, (1 << 55) - 1, (1 << 63) - 1, (1 << 64) - 10_000_000, (1 << 64) - 1]
# Numbered by their id, one after the other in time.
WRITE = """
import time
from dataclasses import replace
from logindguard.record.journal import Journal
from tests.unit.test_history import RECORD
from tests.unit.test_journal import ended
journal = Journal()
for number in range({count}):
    record = replace(RECORD, id=f"{{number:032x}}", realtime_usec=time.time_ns() // 1000)
    journal.record(replace(record, teardowns=(ended(number),)))
time.sleep(0.5)  # journald looks in /proc who sent an entry, when it reads it
"""
READ = """
import json
from logindguard.record.history import History
{program}
"""


def history(writer: str, program: str) -> Any:
    """What `program` prints as JSON, with History at hand."""
    return json.loads(under_journald(writer, python(READ.format(program=program)), timeout_sec=110))


def forged(kind: str = Kind.RECLAIMED) -> str:
    """An entry as only its sender's claim makes it ours."""
    entry = to_fields(replace(RECORD, id="f" * 32)) | {"MESSAGE": "forged", "MESSAGE_ID": str(kind)}
    return "".join(f"{name}={value}\n" for name, value in entry.items())


@pytest.mark.native
def test_newest_first_within_bounds_and_limit() -> None:
    told = history(
        shlex.join(python(WRITE.format(count=10))),
        """
ids = lambda found: [int(record.id, 16) for record in found.records]
all_of = History().find()
at = {int(record.id, 16): record.realtime_usec for record in all_of.records}
print(json.dumps({
    "all": ids(all_of),
    "bounded": ids(History().find(since_usec=at[3], until_usec=at[6])),
    "since": ids(History().find(since_usec=at[8])),
    "until": [len(History().find(until_usec=usec).records) for usec in {far}],
    "from": [len(History().find(since_usec=usec, until_usec=usec).records) for usec in {far}],
    "limit": ids(History().find(limit=2)),
    "wanted": ids(History().find(wanted=lambda record: int(record.id, 16) % 4 == 0, limit=2)),
    "each": [int(record.id, 16) for record in History().each(since_usec=at[7])],
    "one": History().get(f"{5:032x}").teardowns[0].unit,
    "none": History().get("e" * 32),
    "out_of_time": [len(History().find(max_sec=0).records), History().find(max_sec=0).complete],
}))
""".replace("{far}", str(FAR_USEC)),
    )
    assert told == {
        "all": [9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
        "bounded": [6, 5, 4, 3],
        "since": [9, 8],
        "until": [0, 10, 10, 10, 10, 10],
        "from": [0] * 6,
        "limit": [9, 8],
        "wanted": [8, 4],
        "each": [7, 8, 9],
        "one": "session-5.scope",
        "none": None,
        "out_of_time": [0, False],
    }


@pytest.mark.native
def test_samples_oldest_first_and_no_record(tmp_path: Path) -> None:
    write = """
import time
from logindguard.model import Mode, Sample
from logindguard.record.journal import Journal
journal = Journal()
for number in range(3):
    journal.sample(Sample(
        realtime_usec=time.time_ns() // 1000, mode=Mode.PRECISE, dying=number, residue_bytes=4096 * number,
        teardowns_total=7, freed_bytes_total=8, stolen_pages_total=0, cpu_usec_total=9))
time.sleep(0.5)
"""
    told = history(
        shlex.join(python(write)),
        """
found = History().samples()
later = History().samples(since_usec=found[1].realtime_usec)
print(json.dumps({
    "all": [[each.dying, each.residue_bytes, each.mode] for each in found],
    "since": [each.dying for each in later],
    "limit": [each.dying for each in History().samples(limit=1)],
    "records": len(History().find().records),
}))
""",
    )
    assert told == {
        "all": [[0, 0, "precise"], [1, 4096, "precise"], [2, 8192, "precise"]],
        "since": [1, 2],
        "limit": [2],
        "records": 0,
    }


@pytest.mark.native
def test_what_others_claim_is_not_believed_and_damage_is_counted(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "forged").write_text(forged())
    (tmp_path / "damaged").write_text("MESSAGE_ID=" + Kind.SKIPPED)
    send = (
        "import sys, time; from systemd import journal;"
        "journal.sendv(*open(sys.argv[1], 'rb').read().splitlines()); time.sleep(0.5)"
    )
    by_nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "/usr/bin/python3",
        "-c",
        send,
    ]
    writer = " && ".join(
        [
            shlex.join(python(WRITE.format(count=2))),
            shlex.join([*by_nobody, str(tmp_path / "forged")]),
            f"logger --journald={tmp_path}/forged",
            shlex.join([*python(send), str(tmp_path / "damaged")]),
        ]
    )
    # The paths of pytest's directories are for root alone.
    for directory in tmp_path.parents[:2]:
        directory.chmod(0o755)
    told = history(
        writer,
        """
found = History().find()
print(json.dumps([[record.id for record in found.records], found.corrupt, History().get("f" * 32)]))
""",
    )
    assert told == [[f"{number:032x}" for number in (1, 0)], 1, None]


@pytest.mark.native
def test_a_hundred_thousand_records(tell: Tell) -> None:
    """Read back by the service, and by whole commands of who may read the journal."""
    told = history(
        shlex.join(python(WRITE.format(count=100_000))),
        """
import os, resource, subprocess, sys, tempfile, time
os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = "unix:path=/nowhere"
# As a package has it: compiled when it was installed.
cache = tempfile.TemporaryDirectory()
compiled = os.environ | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": cache.name}
def command(*argv):
    ran = [sys.executable, "-m", "logindguard.ctl", *argv, "--quiet"]
    return subprocess.run(ran, stdout=subprocess.PIPE, check=True, text=True, env=compiled).stdout
def cpu_sec():
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
def timed(function):
    begun, begun_cpu = time.perf_counter(), cpu_sec()
    found = function()
    took[function.__name__] = (time.perf_counter() - begun, cpu_sec() - begun_cpu)
    return found
took = {}
def last_1000():
    return len(History().find(limit=1000).records)
def find():
    return History().find()
def history():
    return command("history", "-n", "1000", "--no-legend").count("\\n")
def blame():
    return {row.get("uid"): row["teardowns"] for row in json.loads(command("blame", "--by=user", "-j"))}
command("--version")
last, found, lines, blamed = timed(last_1000), timed(find), timed(history), timed(blame)
print(json.dumps([len(found.records), found.corrupt, last, lines, blamed[1000], took]))
""",
    )
    *counts, took = told
    for what, (wall_sec, cpu_sec) in took.items():
        tell(f"{what} over 100,000 records: {wall_sec:.2f} s, {cpu_sec:.2f} s of CPU time")
    assert counts == [100_000, 0, 1000, 1000, 100_000]


@pytest.mark.native
def test_what_recording_a_teardown_costs(tell: Tell) -> None:
    """CPU time of the guard, and of journald, which takes the entry in; `-k recording` prints it."""
    told = history(
        "true",
        """
import os, subprocess, time
from dataclasses import replace
from pathlib import Path
from logindguard.record.journal import Journal
from logindguard.statistics import Statistics
from tests.unit.test_history import RECORD
from tests.unit.test_journal import ended
def is_journald(process):
    try:
        same = os.readlink(process / "ns/mnt") == os.readlink("/proc/self/ns/mnt")
        return same and (process / "comm").read_text() == "systemd-journal\\n"
    except OSError:  # it has ended
        return False
[journald] = filter(is_journald, Path("/proc").glob("[0-9]*"))
def spent_sec():
    return time.process_time(), int((journald / "schedstat").read_text().split()[0]) / 1e9
journal, statistics, before = Journal(), Statistics(), spent_sec()
for number in range(5000):
    teardown = ended(number)
    record = replace(RECORD, id=f"{number:032x}", realtime_usec=time.time_ns() // 1000, teardowns=(teardown,))
    statistics.heard(teardown)
    statistics.book(record)
    journal.record(record)
subprocess.run(["journalctl", "--sync"], check=True)
print(json.dumps([after - then for then, after in zip(before, spent_sec())]))
""",
    )
    guard_usec, journald_usec = (sec / 5000 * 1e6 for sec in told)
    tell(f"CPU time for each teardown: {guard_usec:.0f} us here, {journald_usec:.0f} us of journald")
    assert guard_usec > 0


class OutOfOrder:
    """A reader of a journal whose machine began a boot with a clock that was behind."""

    def __init__(self, *realtimes_usec: int) -> None:
        self._entries = [replace(RECORD, id=f"{at:032x}", realtime_usec=at) for at in realtimes_usec]
        self._at = -1

    def seek_realtime(self, usec: int) -> None:
        self._at = -1

    def _next(self) -> bool:
        self._at += 1
        return self._at < len(self._entries)

    def _get_realtime(self) -> int:
        return self._entries[self._at].realtime_usec

    def _get_all(self) -> dict[str, Any]:
        return dict(to_fields(self._entries[self._at]))

    def close(self) -> None:
        return


def test_a_boot_whose_clock_was_behind_hides_no_later_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(History, "_open", lambda *_: OutOfOrder(200, 50, 300))
    assert [record.realtime_usec for record in History().each(100)] == [200, 300]
    assert [booking.realtime_usec for booking in History().bookings(100)] == [200, 300]


def test_a_journal_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(HistoryUnavailable, match="cannot be opened"):
        History(tmp_path / "missing").find()
    assert History(tmp_path).find().records == []


def test_a_journal_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "system.journal").write_bytes(b"LPKSHHRH" + bytes(4096))
    assert History(tmp_path).find().records == []
