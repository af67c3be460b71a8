"""Clocks that jump, a suspend, disks that are full or read-only: reclaim goes on, what degrades is said."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from logindguard.model import ReclaimRecord
from logindguard.record.entry import from_fields
from tests.vm.faults.conftest import Result
from tests.vm.faults.ground import minima
from tests.vm.faults.watch import warnings
from tests.vm.hook_host import MANAGER
from tests.vm.host import FILES, UNIT, Host
from tests.vm.machine import Machine, wait_until
from tests.vm.test_service import show

pytestmark = [pytest.mark.load, pytest.mark.timeout(900)]

JUMPS = ("+1 day", "-2 days", "+1 day")
ASLEEP_SEC = 15
RUN = "/run/logindguard"


def cursor(machine: Machine) -> str:
    """A place in the journal that no clock moves."""
    shown = machine.run("journalctl --no-pager --lines=0 --show-cursor").stdout
    return "--after-cursor=" + shown.rpartition("cursor: ")[2].strip()


def records_since(machine: Machine, place: str) -> list[ReclaimRecord]:
    entries = machine.journal_records("--unit", UNIT, place)
    return [from_fields(entry) for entry in entries if "LOGINDGUARD_OUTCOME" in entry]


def read_and_leave(host: Host, name: str) -> None:
    host.machine.run(
        f"dd status=none iflag=nocache count=0 if={FILES}/{name};"
        f" systemd-run --quiet --scope cat {FILES}/{name} >/dev/null",
        timeout_sec=120,
    )


def told(host: Host, place: str, what: str) -> None:
    """Of a scope that ended: freed, or left for a while on a machine as slow as an emulated one."""
    wait_until(
        lambda: any(
            t.unit.startswith("run-") for r in records_since(host.machine, place) for t in r.teardowns
        ),
        timeout_sec=60,
        what=what,
    )


@contextmanager
def over_run(machine: Machine, options: str, then: str) -> Iterator[None]:
    """Another file system in the place of the runtime directory, where the service sees it."""
    inside = f"nsenter --mount --target {show(machine, 'MainPID')} sh -c"
    machine.run(f"{inside} 'mount -t tmpfs -o {options} none {RUN} && {then}'")
    try:
        yield
    finally:
        machine.run(f"{inside} 'umount {RUN}'")


@pytest.mark.parametrize(
    ("options", "then"),
    [("ro,mode=700", "true"), ("size=8k,mode=700", f"! head -c 1M /dev/zero >{RUN}/full")],
    ids=["read-only", "full"],
)
def test_a_runtime_directory_that_takes_nothing(host: Host, options: str, then: str, result: Result) -> None:
    """Without a ledger there is no shield, and so no reclaim behind one; each is told, and nothing breaks."""
    machine = host.machine
    host.make_files("run", 1)
    pid = show(machine, "MainPID")
    place = cursor(machine)
    with over_run(machine, options, then):
        read_and_leave(host, "run-0")
        wait_until(lambda: warnings(machine, place), timeout_sec=60, what="it says what it cannot do")
        time.sleep(15)  # retries
        warned = warnings(machine, place)
        assert RUN in warned[0]
        paused = machine.run(f"busctl call {MANAGER} Pause t 3000000", check=False)
        assert paused.status != 0
        assert RUN in paused.stderr
    place = cursor(machine)
    read_and_leave(host, "run-0")
    told(host, place, "a scope once it takes files again")
    result(warnings=len(warned), first=warned[0])
    assert show(machine, "MainPID") == pid
    assert len(warned) <= 6


def test_a_full_disk(host: Host, result: Result) -> None:
    machine = host.machine
    host.make_files("disk", 1)
    metrics = "/var/lib/prometheus/node-exporter"
    machine.run(f"mkdir -p {metrics}")
    with host.settings(f"metrics:\n  textfile: {metrics}/logindguard.prom\n  interval: 5s\n"):
        machine.run(f"systemctl restart {UNIT}")  # the directory came after it
        wait_until(
            lambda: machine.run(f"test -s {metrics}/logindguard.prom", check=False).status == 0,
            timeout_sec=60,
            what="the metrics are there",
        )
        place = cursor(machine)
        # What is free, and then what is kept for root.
        machine.run(
            "journalctl --sync; fallocate -l $(df --output=avail -B1 / | tail -1) /var/fill;"
            " head -c 1G /dev/zero >/var/fill-root; df /",
            check=False,
            timeout_sec=240,
        )
        try:
            read_and_leave(host, "disk-0")
            time.sleep(20)
            shown = machine.run("logindguardctl --json=short history --since -1min", check=False).stdout
        finally:
            machine.run("rm -f /var/fill /var/fill-root", timeout_sec=120)
        place_after = cursor(machine)
        read_and_leave(host, "disk-0")
        told(host, place_after, "a scope with room on the disk again")
        warned = warnings(machine, place)
    result(reclaimed_meanwhile="run-" in shown, warnings=warned)
    assert "run-" in shown
    assert show(machine, "ActiveState") == "active"
    assert len(warned) <= 4


# Last of all: a journal in which time went back is not read in order, and a machine may not wake up.


def test_clock_jumps(host: Host, result: Result) -> None:
    """A pause for seconds must not become one for days, nor a reclaim be put off."""
    machine = host.machine
    host.make_files("clock", 1)
    begin = cursor(machine)
    pauses = []
    for jump in JUMPS:
        machine.run(f"busctl call {MANAGER} Pause t 3000000; date --set '{jump}'")
        started = time.monotonic()
        wait_until(
            lambda: machine.run(f"busctl get-property {MANAGER} Paused").stdout == "b false\n",
            timeout_sec=60,
            what="the pause has ended",
        )
        pauses.append(round(time.monotonic() - started, 1))
        place = cursor(machine)
        read_and_leave(host, "clock-0")
        told(host, place, f"a scope after {jump}")
    warned = warnings(machine, begin)
    result(jumps=list(JUMPS), pauses_of_3_sec_ended_after_sec=pauses, warnings=warned)
    assert warned == []
    assert show(machine, "ActiveState") == "active"


def test_suspend(host: Host, result: Result) -> None:
    """To memory: the clock of the day goes on meanwhile, the others stand still."""
    machine = host.machine
    host.make_files("suspend", 2)
    begin, process = cursor(machine), show(machine, "MainPID")
    read_and_leave(host, "suspend-0")
    # By one session that lasts all the time: for new ones QEMU's network may stay deaf after it.
    asleep = f"systemd-run --quiet --collect rtcwake --mode=mem --seconds={ASLEEP_SEC}"
    machine.run(f"{asleep}; sleep 2", timeout_sec=180)
    wait_until(
        lambda: "PM: suspend exit" in machine.journal("--dmesg", begin), timeout_sec=180, what="it is awake"
    )
    place = cursor(machine)
    read_and_leave(host, "suspend-1")
    told(host, place, "a scope after the suspend")
    warned, raised = warnings(machine, begin), minima(machine)
    result(asleep_sec=ASLEEP_SEC, raised=raised, warnings=warned)
    assert warned == []
    assert raised == {}
    assert show(machine, "MainPID") == process
