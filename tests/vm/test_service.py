"""The installed service: the package, its unit, and what an administrator does to it."""

from __future__ import annotations

import re
import time

import pytest

from tests.conftest import Tell
from tests.vm.machine import Machine, wait_until

UNIT = "logindguard.service"
LIBEXEC = "/usr/libexec/logindguardd"


def show(machine: Machine, name: str) -> str:
    return machine.run(f"systemctl show --property={name} --value {UNIT}").stdout.strip()


@pytest.fixture(autouse=True)
def _runs_again(machine: Machine) -> None:
    machine.run(f"systemctl reset-failed {UNIT}; systemctl start {UNIT}")


def test_installing_enables_and_starts_it(machine: Machine) -> None:
    assert machine.run(f"systemctl is-enabled {UNIT}").stdout.strip() == "enabled"
    assert show(machine, "ActiveState") == "active"
    assert re.match(r"precise: \d+ teardowns, \d+ MiB released", show(machine, "StatusText"))
    assert "Mode precise" in machine.journal("--unit", UNIT)


def test_it_is_hardened(machine: Machine, tell: Tell) -> None:
    report = machine.run(f"systemd-analyze security --no-pager {UNIT}").stdout
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", report)
    assert exposure is not None
    tell(exposure[0])
    assert float(exposure[1]) <= 1.1


def test_the_sweep_is_idle_and_the_rest_is_not(machine: Machine) -> None:
    pid = show(machine, "MainPID")
    seen = machine.run(
        f"ps -L -o comm=,cls=,ni= -p {pid}; for t in /proc/{pid}/task/*; do ionice -p ${{t##*/}}; done"
    )
    assert "IDL" in seen.stdout
    assert "TS" in seen.stdout
    assert "idle" in seen.stdout


def test_reload_with_good_and_bad_settings(machine: Machine) -> None:
    dropin = "/etc/logindguard/config.d/50-test.yaml"
    machine.run("mkdir -p /etc/logindguard/config.d")
    try:
        machine.run(f"printf 'sweep:\\n  interval: 1min\\n' >{dropin} && systemctl reload {UNIT}")
        wait_until(
            lambda: "Settings were read again" in machine.journal("--unit", UNIT),
            timeout_sec=10,
            what="the reload",
        )
        machine.run(f"printf 'sweep:\\n  intervall: 1min\\n' >{dropin} && systemctl reload {UNIT}")
        told = f"{dropin}:2: "
        wait_until(lambda: told in machine.journal("--unit", UNIT), timeout_sec=10, what="the error")
        assert show(machine, "ActiveState") == "active"
        machine.run(f"systemctl stop {UNIT}")
        assert machine.run(f"systemctl start {UNIT}", check=False).status != 0
        assert show(machine, "ExecMainStatus") == "78"
    finally:
        machine.run(f"rm -f {dropin}; systemctl reset-failed {UNIT}; systemctl start {UNIT}")


# Shuts the bus socket of another process down, as a broken connection would.
CUT = """
import ctypes, os, socket, sys
pid = int(sys.argv[1])
pidfd = os.pidfd_open(pid)
pidfd_getfd = 438
for name in os.listdir(f"/proc/{pid}/fd"):
    if os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
        copy = socket.socket(fileno=ctypes.CDLL(None).syscall(pidfd_getfd, pidfd, int(name), 0))
        try:
            if "dbus" in str(copy.getpeername()):
                copy.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # not connected: the notify socket
"""


def test_a_lost_bus_is_found_again(machine: Machine) -> None:
    """Only our connection is cut: dbus-daemon itself must not be restarted under logind."""
    pid = show(machine, "MainPID")
    machine.run(f"python3 - {pid}", data=CUT.encode())
    wait_until(
        lambda: "connection to the system bus was lost" in machine.journal("--unit", UNIT),
        timeout_sec=15,
        what="it says so",
    )
    told = "told by logind, systemd and the cgroup tree"
    wait_until(
        lambda: told in machine.journal("--unit", UNIT).rpartition("bus was lost")[2],
        timeout_sec=60,
        what="it listens again",
    )
    assert show(machine, "MainPID") == pid


def test_restore_by_hand_is_safe_while_it_runs(machine: Machine) -> None:
    assert machine.run(f"{LIBEXEC} --restore").status == 0
    assert show(machine, "ActiveState") == "active"


def test_a_second_run_without_root_says_so(machine: Machine) -> None:
    result = machine.run(LIBEXEC, user="alice", check=False)
    assert result.status == 77
    assert "Must be run as root" in result.stderr


@pytest.mark.load
def test_a_day_without_logins_costs_nothing(machine: Machine, tell: Tell) -> None:
    """Prints what half a minute of nothing costs here; the bar is asserted natively."""
    time.sleep(20)  # whatever earlier tests left
    before = int(show(machine, "CPUUsageNSec"))
    time.sleep(30)
    used_msec = (int(show(machine, "CPUUsageNSec")) - before) / 1e6
    pid = show(machine, "MainPID")
    rss = machine.run(f"grep VmRSS /proc/{pid}/status").stdout.split()[1]
    tell(f"idle for 30 s: {used_msec:.0f} ms CPU under emulation, RSS {int(rss) >> 10} MiB")
    assert int(rss) < 40 << 10


def test_the_journal_explains_itself(machine: Machine) -> None:
    machine.login("alice", "head -c 1M /dev/urandom >explain")
    wait_until(
        lambda: "alice" in machine.journal("--unit", UNIT, "--lines=5"), timeout_sec=20, what="a record"
    )
    explained = machine.run(f"journalctl --no-pager -x --unit {UNIT} --lines=20").stdout
    assert "Page cache of ended sessions was reclaimed at /user.slice" in explained
    assert "What is left is tried again by the periodic sweep." in explained
