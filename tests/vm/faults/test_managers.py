"""Restarts and losses of what the guard hangs on: it goes on by itself, and misses and doubles nothing."""

from __future__ import annotations

import time

import pytest

from logindguard.model import Way
from tests.vm.faults.conftest import Result
from tests.vm.hook_host import MANAGER
from tests.vm.host import FILES, MIB, UNIT, Host
from tests.vm.machine import wait_until
from tests.vm.test_service import show

ENDS = 4  # scopes that end meanwhile
RECOVERS_SEC = 60  # 10 s on a machine; this one is emulated, and others are at work on it
GONE_SEC = 10
BUS_GONE_SEC = 60
JOURNALD = "systemd-journald.socket systemd-journald-dev-log.socket systemd-journald-audit.socket"
FAULTS = {
    "systemd reloaded": ("systemctl daemon-reload", "true"),
    "systemd executed anew": ("systemctl daemon-reexec", "true"),
    "logind restarted": ("systemctl restart systemd-logind", "true"),
    "logind stopped": ("systemctl kill -s STOP systemd-logind", "systemctl kill -s CONT systemd-logind"),
    "bus stopped": ("pkill -STOP -x dbus-daemon", "pkill -CONT -x dbus-daemon"),
    "polkit gone": (
        "systemctl mask --runtime --quiet polkit; systemctl stop polkit",
        "systemctl unmask --runtime --quiet polkit; systemctl start polkit",
    ),
    "journald gone": (
        f"systemctl stop {JOURNALD} systemd-journald",
        f"systemctl start {JOURNALD} systemd-journald",
    ),
    # Neither systemd nor logind goes on as before after these: the machine is booted anew.
    "bus restarted": ("systemctl restart dbus", "true"),
    "bus gone": ("systemctl stop dbus.socket dbus", "systemctl start dbus.socket dbus"),
}
BOOT_AFTER = ("bus restarted", "bus gone")


def scope_ends(host: Host, unit: str) -> None:
    host.machine.run(
        f"dd status=none iflag=nocache count=0 if={FILES}/fault-0;"
        f" systemd-run --quiet --scope --unit={unit} cat {FILES}/fault-0 >/dev/null",
        timeout_sec=120,
    )


def told_after(host: Host) -> list[str]:
    """Units of scopes of this test, once for each time that they were told of as removed."""
    records = [each for each in host.records() if each.way is Way.AFTER]
    return [t.unit for each in records for t in each.teardowns if t.unit.startswith("run-fault-")]


@pytest.mark.load
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("fault", FAULTS)
def test_it_goes_on_by_itself(host: Host, fault: str, result: Result) -> None:
    machine = host.machine
    begin, end = FAULTS[fault]
    host.make_files("fault", 1, MIB, read_before=True)
    pid = show(machine, "MainPID")
    name = fault.replace(" ", "-")
    meanwhile = [f"run-fault-{name}-{n}.scope" for n in range(ENDS)]
    host.mark()
    machine.run(begin)
    try:
        for unit in meanwhile:
            scope_ends(host, unit)
        if end != "true":
            time.sleep(BUS_GONE_SEC if fault.startswith("bus") else GONE_SEC)
    finally:
        machine.run(end)
    started = time.monotonic()
    wait_until(
        lambda: machine.run(f"busctl --timeout=5 call {MANAGER} GetStatistics", check=False).status == 0,
        timeout_sec=RECOVERS_SEC,
        what="it answers on the bus",
    )
    answers_sec = time.monotonic() - started
    last = f"run-fault-{name}-last.scope"
    scope_ends(host, last)
    wait_until(lambda: last in told_after(host), timeout_sec=RECOVERS_SEC, what="it tells of teardowns")
    tells_sec = time.monotonic() - started
    lost = [unit for unit in meanwhile if not machine.run(f"logindguardctl show {unit}", check=False).stdout]
    if fault != "journald gone":  # else what it told is only in its own memory
        wait_until(
            lambda: {*told_after(host)} >= {*meanwhile, last}, timeout_sec=60, what="each scope is told of"
        )
        lost = []
    told = told_after(host)
    result(answers_again_sec=round(answers_sec, 1), tells_again_sec=round(tells_sec, 1), lost=lost)
    assert lost == []
    assert len(told) == len({*told})  # none twice
    assert show(machine, "MainPID") == pid
    assert machine.run(f"systemctl is-active {UNIT}").stdout.strip() == "active"
    if fault in BOOT_AFTER:
        machine.run("sync")
        machine.reset()
