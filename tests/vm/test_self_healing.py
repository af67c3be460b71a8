"""Debian 13 with a kernel that reparents page cache: the guard counts, and keeps its hands off."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from logindguard.model import Mode, Outcome
from tests.conftest import Tell
from tests.lab import cgroup_writes
from tests.vm.conftest import on
from tests.vm.host import UNIT, Host
from tests.vm.machine import wait_until
from tests.vm.system import BACKPORTS
from tests.vm.test_service import show

pytestmark = [on(BACKPORTS), pytest.mark.timeout(600)]

LOGINS = 50
HEALED = 2  # above what was dying before: the bar of kernels where the guard is at work
HEALS_WITHIN_SEC = 60
EXPIRED_SEC = 50  # dirty pages are written after 30 s, looked for every 5 s
REASON = "this kernel heals itself: it reparents page cache"


def test_it_observes_and_says_why(host: Host) -> None:
    """Under the hardened unit, which hides kallsyms: BTF tells."""
    host.machine.run(f"systemctl restart {UNIT}")
    status = host.machine.run(f"systemctl show --property=StatusText --value {UNIT}").stdout
    assert status.startswith("observe: ")
    assert f"Mode observe, nothing is reclaimed: {REASON}" in host.machine.journal("--unit", UNIT)


def test_it_writes_to_no_cgroup(host: Host) -> None:
    """Told by fanotify(7) of every write to any control file, over a start and some logouts."""
    program = "/var/tmp/cgroup_writes.py"
    host.machine.put(Path(cgroup_writes.__file__), program)
    with host.machine.session("root", f"python3 {program}") as watch:
        assert watch.readline() == "ready"
        # That it sees writes at all, through another mount of it too.
        host.machine.run("unshare --mount sh -c 'echo 0 >/sys/fs/cgroup/system.slice/memory.reclaim'")
        pids = {show(host.machine, "MainPID")}
        host.guard("restart")
        pids.add(show(host.machine, "MainPID"))
        host.machine.logins("alice", ["head -c 1M /dev/urandom >written"] * 4)
        wait_until(lambda: len(host.records()) >= 1, timeout_sec=60, what="a record")
        writes = [line.split(" ", 1) for line in watch.rest()]
    assert {show(host.machine, "MainPID")} <= pids  # all that time
    assert "memory.reclaim" in {name for _, name in writes}  # that of above
    # What becomes a service enters its cgroup by itself, before it is the guard.
    assert not [(pid, name) for pid, name in writes if pid in pids and name != "cgroup.procs"]


def heals(host: Host, enough: int, *, within_sec: float = HEALS_WITHIN_SEC) -> str:
    """The dying, second by second where it changed, until there are no more than `enough`; for people."""
    started, seen = time.monotonic(), {}

    def healed() -> bool:
        passed_sec = time.monotonic() - started
        seen[round(passed_sec)] = dying = host.machine.dying("/user.slice")
        return dying <= enough or passed_sec > within_sec

    wait_until(healed, timeout_sec=2 * within_sec, what="the time has come", every_sec=1)
    changes = [sec for sec, last in zip(seen, (-1, *seen.values()), strict=False) if seen[sec] != last]
    return ", ".join(f"{seen[sec]} at {sec} s" for sec in changes)


def test_how_long_it_takes_to_heal(host: Host, tell: Tell) -> None:
    """The same logins as where the guard is at work, which here tells what it sees and no more.

    The kernel looks for memcgs that nothing but a clean inode pins when another one goes offline.
    """
    host.make_files("heal", LOGINS)
    before = host.drop()
    pgsteal = host.machine.memory_stat("/user.slice")["pgsteal"]
    host.log_in("alice", LOGINS, files="heal")
    left_alone = heals(host, before, within_sec=EXPIRED_SEC)
    host.machine.run("systemd-run --quiet --wait true")
    after_another = heals(host, before + HEALED)
    tell(
        f"{LOGINS} logins, {before} dying before; left to itself: {left_alone}; another end: {after_another}"
    )
    assert host.machine.dying("/user.slice") <= before + HEALED
    records = host.records()
    assert {record.mode for record in records} == {Mode.OBSERVE}
    assert {record.outcome for record in records} == {Outcome.SKIPPED}
    assert max(record.dying_before for record in records) > 0
    assert sum(record.writes for record in records) == 0
    assert host.machine.memory_stat("/user.slice")["pgsteal"] == pgsteal


def test_what_a_sync_does_for_it(host: Host, tell: Tell) -> None:
    """What pins a memcg here is an inode that it wrote to, until that is on the disk."""
    host.make_files("sync", LOGINS)
    before = host.drop()
    host.log_in("alice", LOGINS, files="sync")
    at_once = host.machine.dying("/user.slice")
    started = time.monotonic()
    host.machine.run("sync", timeout_sec=60)
    took_sec = time.monotonic() - started
    tell(f"{at_once} dying, sync took {took_sec:.1f} s, then: {heals(host, before + HEALED)}")
    assert host.machine.dying("/user.slice") <= before + HEALED


# The guard as on kernels that need it: told that this one does not heal itself.
AT_WORK = """
import dataclasses, sys
from logindguard import daemon
from logindguard.kernel import choose
probe = choose.probe
choose.probe = lambda *given, **named: dataclasses.replace(probe(*given, **named), reparents_lru=False)
sys.exit(daemon.main([]))
"""


def test_what_the_guard_would_do_for_it(host: Host, tell: Tell) -> None:
    """No more than the kernel does by itself, and it would take page cache for that."""
    host.make_files("work", LOGINS)
    machine, program, unit = host.machine, "/var/tmp/at-work.py", "lg-at-work.service"
    machine.run(f"cat >{program}", data=AT_WORK.encode())
    before = host.drop()
    host.guard("stop")
    machine.run(f"systemd-run --quiet --unit={unit} -p Type=notify python3 {program}")
    try:
        assert "Mode precise" in machine.journal("--unit", unit)
        pgsteal = machine.memory_stat("/user.slice")["pgsteal"]
        host.log_in("alice", LOGINS, files="work")
        curve = heals(host, before + HEALED)
        taken_pages = machine.memory_stat("/user.slice")["pgsteal"] - pgsteal
        assert machine.dying("/user.slice") <= before + HEALED
    finally:
        machine.run(f"systemctl stop {unit}")
    tell(f"with the guard at work: {curve}; it took {taken_pages >> 8} MiB of page cache")
