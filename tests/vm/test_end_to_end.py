"""What the guard must show on a real Debian, with real logins. Figures are printed with -rP."""

from __future__ import annotations

import re
import statistics
import time

import pytest

from logindguard.model import Outcome, ReclaimRecord, Way
from tests.conftest import Tell
from tests.vm.host import FILES, MIB, READ_BYTES, UNIT, Host
from tests.vm.machine import Machine, wait_until
from tests.vm.ssh import Session
from tests.vm.system import BOOKWORM

LOGINS = 50


@pytest.mark.timeout(900)
def test_fifty_logins_leave_nothing(host: Host, tell: Tell) -> None:
    tell(host.machine.run("uname -r && systemctl --version | head -1").stdout.replace("\n", ", "))
    host.make_files("without", LOGINS)
    host.make_files("with", LOGINS)

    host.guard("stop")
    floor = host.drop()
    host.log_in("alice", LOGINS, files="without")
    without = host.machine.dying("/user.slice") - floor
    wait_until(lambda: host.slice_is_gone(1000), timeout_sec=60, what="alice's slice is gone")
    host.drop()

    host.guard("start")
    host.mark()
    host.log_in("alice", LOGINS, files="with")
    last_logout = time.monotonic()
    seen: dict[int, int] = {}
    while (passed := time.monotonic() - last_logout) < 60:
        seen[int(passed)] = host.machine.dying("/user.slice")
        time.sleep(1)
    dying = host.machine.dying("/user.slice")
    records = host.records()
    floor = host.drop()
    at_15 = next(count for second, count in sorted(seen.items()) if second >= 15)

    after = [record for record in records if record.way is Way.AFTER]
    released = [
        record.release_usec
        for record in after
        if record.release_usec is not None and any(t.unit.startswith("session-") for t in record.teardowns)
    ]
    tell(f"without the guard: {without} dying after {LOGINS} logins")
    tell(f"with the guard: {at_15} at 15 s ({100 * at_15 / LOGINS:.0f} % of the logins), {dying} at 60 s")
    tell(f"floor (sync, drop_caches=3): {floor}")
    tell(f"from the last rmdir of a group to its release: median {statistics.median(released) / 1e6:.2f} s")
    before = [record for record in records if record.way is Way.BEFORE]
    tell(f"before the removal: {len(before)} units, {sum(r.freed_bytes for r in before) / MIB:.0f} MiB")
    tell(f"records: {len(records)}, freed {sum(r.freed_bytes for r in records) / MIB:.0f} MiB")
    assert without >= LOGINS * 8 // 10
    assert dying <= floor + 2
    assert statistics.median(released) <= 2_000_000
    assert [record for record in records if record.stolen_pages] == []
    told = [t.unit for r in after for t in r.teardowns if t.unit.startswith("session-")]
    assert len(told) == len(set(told))  # each session once
    teardowns = [t for r in (*before, *after) for t in r.teardowns if t.unit.startswith("session-")]
    assert len({teardown.unit for teardown in teardowns}) == LOGINS
    assert {t.service for t in teardowns} == {"sshd"}
    assert {t.uid for t in teardowns} == {1000}


@pytest.mark.timeout(600)
def test_live_neighbours_lose_nothing(host: Host, tell: Tell) -> None:
    """One that grows, one that shrinks, one that exits; of the same user and of others."""
    host.make_files("burst", 12)
    with (
        host.neighbour("alice", "same") as same,
        host.neighbour("bob", "growing") as growing,
        host.neighbour("carol", "shrinking") as shrinking,
    ):
        exiting = host.neighbour("bob", "exiting")
        for start in range(0, 12, 3):
            commands = [f"cat {FILES}/burst-{n} >/dev/null" for n in range(start, start + 3)]
            host.machine.logins("alice", commands)
            growing.ask(f"grow {10 * MIB}")
            shrinking.ask(f"shrink {20 * MIB}")
        lost_by_exiting = host.stolen(exiting)
        exiting.close()
        host.machine.logins("alice", ["true"] * 3)
        wait_until(
            lambda: sum(len(r.teardowns) for r in host.records()) >= 16, timeout_sec=30, what="the records"
        )
        time.sleep(8)  # a retry of the sweep, and a flush of memory.stat
        lost = {name: host.stolen(each) for name, each in _named(same, growing, shrinking)}
        tell(f"pgsteal of live neighbours: {lost | {'exiting': lost_by_exiting}}")
        assert lost_by_exiting == 0
        assert lost == {"same": 0, "growing": 0, "shrinking": 0}
        records = host.records()
        assert sum(record.freed_bytes for record in records) > 10 * READ_BYTES
        assert sum(record.stolen_pages for record in records) == 0
        assert max(record.shielded for record in records) >= 2


def _named(same: Session, growing: Session, shrinking: Session) -> list[tuple[str, Session]]:
    return [("same", same), ("growing", growing), ("shrinking", shrinking)]


MAPS = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    mapping = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    for offset in range(0, len(mapping), mmap.PAGESIZE):
        mapping[offset]
    print("mapped", flush=True)
    sys.stdin.read()
"""


@pytest.mark.timeout(300)
def test_pages_that_a_live_process_maps_stay(host: Host, tell: Tell) -> None:
    host.make_files("library", 1, 40 * MIB)
    file = f"{FILES}/library-0"
    host.machine.run("cat > /var/tmp/maps.py", data=MAPS.encode())

    def resident() -> int:
        return int(host.machine.run(f"fincore --noheadings --bytes --output RES {file}").stdout)

    reader = host.machine.session("alice", f"cat {file} >/dev/null; echo read; cat")
    assert reader.readline().strip() == "read"
    with host.machine.session("bob", f"python3 /var/tmp/maps.py {file}") as maps:
        assert maps.readline().strip() == "mapped"
        before = resident()
        reader.close()  # bob only maps: alice's session was charged for all of it
        wait_until(lambda: host.records_of(_unit(reader)), timeout_sec=30, what="a record of the reader")
        wait_until(lambda: host.slice_is_gone(1000), timeout_sec=60, what="alice's slice is gone")
        host.machine.logins("alice", ["true"] * 2)
        time.sleep(15)  # some retries of the sweep
        kept = wait_until(
            lambda: [record for record in host.records() if record.outcome is Outcome.MAPPED_KEPT],
            timeout_sec=30,
            what="a record that says mapped kept",
        )
        tell(
            f"resident: {before / MIB:.1f}, then {resident() / MIB:.1f} MiB;"
            f" kept as told: {[record.mapped_kept_bytes for record in kept]}"
        )
        assert before == 40 * MIB
        assert resident() >= before - MIB // 4  # what memory.stat cannot resolve
        assert max(record.mapped_kept_bytes for record in kept) >= 39 * MIB


def _unit(session: Session) -> str:
    return session.cgroup.rpartition("/")[2]


@pytest.mark.timeout(300)
def test_nothing_is_swapped_out(host: Host, tell: Tell) -> None:
    """A tmpfs file of an ended session, while its user lives on and swap is there to take it."""
    machine = host.machine
    machine.run("swapon /dev/vdb")
    try:
        with machine.session("alice", "cat"):  # keeps /run/user/1000
            before = _vmstat(machine, "pswpout")
            writer = machine.session(
                "alice", f"head -c {50 * MIB} /dev/urandom >/run/user/1000/big; echo done; cat"
            )
            assert writer.readline(timeout_sec=120).strip() == "done"
            writer.close()
            wait_until(lambda: host.records_of(_unit(writer)), timeout_sec=30, what="a record")
            time.sleep(8)  # a retry of the sweep
            after = _vmstat(machine, "pswpout")
            tell(f"pswpout: {before} before, {after} after")
            assert after == before
            record = host.records_of(_unit(writer))[-1]
            if machine.system is BOOKWORM:  # its kernel cannot be told to leave swap alone
                assert record.outcome is Outcome.SKIPPED
                assert "swap" in record.reason
            assert record.outcome is not Outcome.FAILED
            assert machine.memory_stat("/user.slice")["shmem"] >= 50 * MIB
    finally:
        machine.run("swapoff /dev/vdb", timeout_sec=120)


def _vmstat(machine: Machine, key: str) -> int:
    lines = machine.read("/proc/vmstat").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key} "))


def test_terminate_session(host: Host, tell: Tell) -> None:
    """A stop by request: systemd queues a job, then kills."""
    host.make_files("terminate", 1)
    session = host.machine.session("carol", f"cat {FILES}/terminate-0 >/dev/null; echo read; sleep 600")
    assert session.readline().strip() == "read"
    number = re.fullmatch(r"session-(\w+)\.scope", _unit(session))
    assert number is not None
    host.machine.run(f"loginctl terminate-session {number[1]}")
    wait_until(
        lambda: sum(each.freed_bytes for each in host.records_of(_unit(session))) >= READ_BYTES * 9 // 10,
        timeout_sec=30,
        what="what the terminated session read is released",
    )
    ways = [f"{each.way}: {each.freed_bytes >> 10} KiB" for each in host.records_of(_unit(session))]
    tell(f"freed {', '.join(ways)}")
    session.close()


def test_a_lingering_users_sessions(host: Host) -> None:
    """Linger keeps user-UID.slice: what its sessions leave hangs there, not under user.slice."""
    host.make_files("linger", 5)
    host.machine.run("loginctl enable-linger carol")
    try:
        wait_until(lambda: not host.slice_is_gone(1002), timeout_sec=30, what="carol's manager runs")
        host.machine.logins("carol", [f"cat {FILES}/linger-{n} >/dev/null" for n in range(5)])
        slice_path = "/user.slice/user-1002.slice"
        wait_until(lambda: host.machine.dying(slice_path) <= 1, timeout_sec=60, what="carol's are released")
        assert not host.slice_is_gone(1002)
        assert any(record.target.startswith(slice_path) for record in host.records() if record.freed_bytes)
    finally:
        host.machine.run("loginctl disable-linger carol")


@pytest.mark.timeout(300)
def test_cron_jobs_with_sessions(host: Host) -> None:
    """As an administrator sets it up who wants cron jobs in sessions of their own."""
    machine = host.machine
    host.make_files("cron", 1)
    machine.run(
        "cp /etc/pam.d/cron /root/pam-cron && echo 'session optional pam_systemd.so' >>/etc/pam.d/cron"
        f" && echo '* * * * * bob cat {FILES}/cron-0 >/dev/null' >/etc/cron.d/e2e"
        # The next full minute comes soon: cron looks at the clock as it starts.
        " && date --set=@$(($(date +%s) / 60 * 60 + 55)) && systemctl restart cron"
    )
    try:

        def cron_records() -> list[ReclaimRecord]:
            return [r for r in host.records() if any(t.service == "cron" for t in r.teardowns)]

        record = wait_until(cron_records, timeout_sec=150, what="the record of a cron job's session")[0]
        [teardown] = [each for each in record.teardowns if each.service == "cron"]
        assert teardown.uid == 1001
        assert record.freed_bytes >= READ_BYTES * 9 // 10
        entry = next(
            entry
            for entry in machine.journal_records("--unit", UNIT, "--since", host.since)
            if entry.get("LOGINDGUARD_RECORD_ID") == record.id
        )
        assert "cron" in entry["MESSAGE"]
        assert "bob" in entry["MESSAGE"]
    finally:
        machine.run("rm /etc/cron.d/e2e && mv /root/pam-cron /etc/pam.d/cron && systemctl restart cron")


def test_systemd_run_scopes(host: Host) -> None:
    host.make_files("scope", 1)
    host.machine.run(f"systemd-run --scope --quiet cat {FILES}/scope-0 >/dev/null")
    found = lambda: [  # noqa: E731  # one expression
        r for r in host.records() if any(t.unit.startswith("run-") for t in r.teardowns)
    ]
    record = wait_until(found, timeout_sec=30, what="the record of the scope")[0]
    assert record.target == "/system.slice"
    assert record.stolen_pages == 0
