"""Debian 13 with a kernel that reparents page cache: the guard counts, and keeps its hands off."""

from __future__ import annotations

import time
from pathlib import Path

from logindguard.model import Mode, Outcome
from tests.conftest import Tell
from tests.lab import cgroup_writes
from tests.vm.conftest import on
from tests.vm.host import UNIT, Host
from tests.vm.machine import wait_until
from tests.vm.system import BACKPORTS

pytestmark = on(BACKPORTS)

LOGINS = 50
HEALED = 2  # above what was dying before: the bar of kernels where the guard is at work
HEALS_WITHIN_SEC = 180
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
        host.guard("restart")
        host.machine.logins("alice", ["head -c 1M /dev/urandom >written"] * 4)
        wait_until(lambda: len(host.records()) >= 1, timeout_sec=60, what="a record")
        pids = host.machine.run(f"pgrep -f logindguard; systemctl show -P MainPID {UNIT}").stdout.split()
        writes = [line.split(" ", 1) for line in watch.rest()]
    assert [name for _, name in writes].count("memory.reclaim") == 1  # ours
    assert not [name for _, name in writes if name in ("memory.min", "memory.swap.max")]
    assert not [write for write in writes if write[0] in pids]


def test_how_long_it_takes_to_heal(host: Host, tell: Tell) -> None:
    """The same logins as where the guard is at work, which here tells what it sees and no more."""
    host.make_files("heal", LOGINS)
    before = host.drop()
    pgsteal = host.machine.memory_stat("/user.slice")["pgsteal"]
    host.log_in("alice", LOGINS, files="heal")
    last_logout = time.monotonic()
    at_once = host.machine.dying("/user.slice")
    wait_until(
        lambda: host.machine.dying("/user.slice") <= before + HEALED,
        timeout_sec=HEALS_WITHIN_SEC,
        what="it has healed",
        every_sec=1,
    )
    tell(
        f"{LOGINS} logins: {at_once} dying at the last logout, {before} before;"
        f" healed to at most {before + HEALED} in {time.monotonic() - last_logout:.0f} s"
    )
    records = host.records()
    assert {record.mode for record in records} == {Mode.OBSERVE}
    assert {record.outcome for record in records} == {Outcome.SKIPPED}
    assert max(record.dying_before for record in records) > 0
    assert sum(record.writes for record in records) == 0
    assert host.machine.memory_stat("/user.slice")["pgsteal"] == pgsteal
