"""Debian 12 on cgroup v1, where nothing shields a live cgroup: hands off, unless told otherwise."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from logindguard.model import Mode, Outcome, ReclaimRecord, Way
from tests.conftest import Tell
from tests.lab import leak
from tests.vm.conftest import on
from tests.vm.host import MIB, UNIT, Host
from tests.vm.machine import wait_until
from tests.vm.system import BOOKWORM_V1
from tests.vm.test_service import show

pytestmark = [on(BOOKWORM_V1), pytest.mark.timeout(600)]

LOGINS = 50
# The rig's own session is always beside what ended: several MiB of a shell and a user's manager.
SHARED = """
reclaim:
  shared: yes
  shared_ratio: 1
sweep:
  interval: 10s
  retry_first: 1s
  cpu_percent: 20
"""


def resident(host: Host, user: str, name: str) -> int:
    """Bytes in memory of what a neighbour holds.

    v1 has no pgsteal for each cgroup, and its pgpgout counts what khugepaged puts together as well.
    """
    files = f"/home/{user}/hoard-{name}/*"
    pieces = host.machine.run(f"fincore --noheadings --bytes --output RES {files}").stdout
    return sum(int(piece) for piece in pieces.split())


def swapped_out(host: Host) -> int:
    lines = host.machine.read("/proc/vmstat").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("pswpout "))


def of_logins(records: list[ReclaimRecord]) -> list[ReclaimRecord]:
    return [record for record in records if any(t.service == "sshd" for t in record.teardowns)]


def after_logout(host: Host) -> list[ReclaimRecord]:
    return [record for record in of_logins(host.records()) if record.way is Way.AFTER]


def sessions(host: Host) -> set[str]:
    """That some record tells of: one that the hook left nothing of has none after its removal."""
    return {t.unit for record in of_logins(host.records()) for t in record.teardowns if t.session_id}


def test_the_mode_is_shared_and_says_why(host: Host) -> None:
    machine = host.machine
    host.guard("restart")
    assert show(machine, "ActiveState") == "active"
    assert show(machine, "StatusText").startswith("shared: ")
    assert "Mode shared, live cgroups beside dying ones cannot be shielded" in machine.journal("--unit", UNIT)


def test_the_service_works_under_its_hardening(host: Host) -> None:
    """Kill, restart and settings, with the unit as it is installed."""
    machine = host.machine
    pid = show(machine, "MainPID")
    machine.run(f"kill -KILL {pid}")
    wait_until(
        lambda: show(machine, "ActiveState") == "active" and show(machine, "MainPID") not in (pid, "0"),
        timeout_sec=60,
        what="it is back",
    )
    failed = machine.run("systemctl --failed --no-legend").stdout
    assert failed == ""
    assert "Operation not permitted" not in machine.journal("--unit", UNIT)


def test_nothing_live_is_reclaimed_or_swapped(host: Host, tell: Tell) -> None:
    """With default settings and swap on, beside a live neighbour of the same user and one of another."""
    machine = host.machine
    host.make_files("default", 12)
    machine.run("swapon /dev/vdb")
    try:
        with host.neighbour("alice", "same", 40 * MIB), host.neighbour("bob", "other", 100 * MIB):
            swapped = swapped_out(host)
            host.log_in("alice", 12, files="default")
            wait_until(lambda: len(sessions(host)) >= 12, timeout_sec=60, what="records of the logouts")
            time.sleep(8)  # a retry of the sweep
            held = [resident(host, "alice", "same"), resident(host, "bob", "other")]
            tell(
                f"page cache of live neighbours: {held[0] / MIB:g} of 40 and {held[1] / MIB:g} of 100 MiB;"
                f" pswpout {swapped} before, {swapped_out(host)} after"
            )
            assert held == [40 * MIB, 100 * MIB]
            assert swapped_out(host) == swapped
            records = after_logout(host)
            assert {record.mode for record in records} == {Mode.SHARED}
            assert sum(record.writes for record in records) == 0
            # Or there is nothing left of them.
            assert {record.outcome for record in records} <= {Outcome.SKIPPED, Outcome.RELEASED}
            assert "live cgroups beside it could lose page cache, and reclaim.shared is off" in {
                record.reason for record in records
            }
    finally:
        machine.run("swapoff /dev/vdb", timeout_sec=120)


def test_dying_is_counted_right(host: Host) -> None:
    """As a record tells it, against the kernel's two numbers: all memcgs, and directories."""
    machine = host.machine
    program, root = "/var/tmp/leak.py", f"{machine.memory_root}/lab.slice"
    machine.put(Path(leak.__file__), program)
    before = machine.dying()
    machine.run(f"mkdir {root}")
    with machine.session(
        "root", f"python3 {program} --root {root} --work-dir /var/tmp/lab --count 100"
    ) as made:
        made.readline(timeout_sec=120)
        assert machine.dying() >= before + 100
        host.mark()
        machine.login("bob", "true")
        record = wait_until(lambda: after_logout(host), timeout_sec=30, what="a record")[-1]
        assert abs(record.dying_after - machine.dying()) <= 2  # what came or went between the two
    machine.run(f"rmdir {root}")


def test_with_the_parent_path_on_and_no_neighbour(host: Host, tell: Tell) -> None:
    machine = host.machine
    host.make_files("shared", LOGINS)
    host.guard("stop")
    floor = host.drop()
    host.log_in("alice", LOGINS, files="shared")
    wait_until(lambda: host.slice_is_gone(1000), timeout_sec=60, what="alice's slice is gone")
    machine.run("sync")
    left = machine.dying() - floor
    with host.settings(SHARED):
        host.mark()
        started = time.monotonic()
        wait_until(
            lambda: machine.dying() - floor <= left // 10,
            timeout_sec=120,
            what="nine of ten are gone",
            every_sec=1,
        )
        records = host.records()
    tell(
        f"{left} dying after {LOGINS} logins, then {machine.dying() - floor}"
        f" in {time.monotonic() - started:.0f} s;"
        f" live cgroups lost at most {sum(record.stolen_pages for record in records)} pages"
    )
    assert left >= LOGINS * 8 // 10
    assert {record.mode for record in records if record.freed_bytes} == {Mode.SHARED}
