"""`systemctl restart` while sessions come and go, as an upgrade or needrestart(1) does it."""

from __future__ import annotations

import pytest

from tests.conftest import Tell
from tests.vm.host import FILES, MIB, READ_BYTES, UNIT, Host
from tests.vm.machine import wait_until

AT_ONCE, ROUNDS = 4, 6
RESTARTS = 3
GO_ON, DONE = "/var/tmp/go-on", "/var/tmp/restarts"
ALICE_UID = 1000

# A line for each restart that was over.
RESTARTING = f"while test -e {GO_ON}; do systemctl restart {UNIT} && echo >>{DONE}; sleep 0.5; done"


def restarts(host: Host) -> int:
    return len(host.machine.read(DONE))


def held_bytes(host: Host) -> int:
    """Page cache of what is dying right under user.slice."""
    children = host.machine.run(
        "cat /sys/fs/cgroup/user.slice/*/memory.stat | awk '$1 == \"file\" {sum += $2} END {print sum + 0}'"
    )
    return host.machine.memory_stat("/user.slice")["file"] - int(children.stdout)


def raised(host: Host) -> str:
    """Every memory.min that is not 0."""
    look = "find /sys/fs/cgroup -name memory.min -exec grep -Hv '^0$' {} + 2>/dev/null | sort"
    return host.machine.run(look).stdout


@pytest.mark.load
@pytest.mark.timeout(1200)
def test_no_teardown_is_lost_that_the_tree_can_show(host: Host, tell: Tell) -> None:
    """Some end while no guard runs: the next one finds what they left, and releases it."""
    machine = host.machine
    host.make_files("restart", AT_ONCE * ROUNDS, read_before=True)
    before = raised(host)
    machine.run(
        f"touch {GO_ON}; : >{DONE}; systemd-run --quiet --collect --unit=restarts sh -c '{RESTARTING}'"
    )
    logins = 0
    while logins < AT_ONCE or (restarts(host) < RESTARTS and logins < AT_ONCE * ROUNDS):
        files = range(logins, logins + AT_ONCE)
        machine.logins("alice", [f"cat {FILES}/restart-{n} >/dev/null" for n in files], timeout_sec=120)
        logins += AT_ONCE
    wait_until(lambda: restarts(host) >= RESTARTS, timeout_sec=240, what=f"{RESTARTS} restarts", every_sec=1)
    machine.run(f"rm {GO_ON}")
    over = "systemctl show --value -p ActiveState restarts"
    wait_until(lambda: machine.run(over).stdout.strip() == "inactive", timeout_sec=120, what="the last one")
    done = restarts(host)
    wait_until(lambda: host.slice_is_gone(ALICE_UID), timeout_sec=60, what="her slice is gone")
    left = held_bytes(host)
    wait_until(
        lambda: held_bytes(host) < READ_BYTES,
        timeout_sec=400,
        what="all that they read is released",
        every_sec=2,
    )
    records = host.records()
    tell(
        f"{machine.system.name}: {done} restarts amid {logins} logins that read 4 MiB each; "
        f"then {left / MIB:.1f} MiB were still held, in the end {held_bytes(host) / MIB:.1f} MiB; "
        f"{sum(each.freed_bytes for each in records) // MIB} MiB told as released in {len(records)} records"
    )
    assert sum(record.stolen_pages for record in records) == 0
    shown = machine.run(
        f"systemctl show -p ActiveState -p NRestarts -p MainPID --value {UNIT}"
    ).stdout.split()
    assert {"active", "0"} <= {*shown}, "none of the restarts may have failed"
    wait_until(lambda: raised(host) == before, timeout_sec=30, what="every memory.min is as before")
