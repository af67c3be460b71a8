"""A host that has no room: sweeps wait and say so, and nothing live loses a page to the guard."""

from __future__ import annotations

import re

import pytest

from tests.vm.faults.conftest import Result
from tests.vm.hook_host import MANAGER
from tests.vm.host import MIB, Host
from tests.vm.machine import wait_until
from tests.vm.test_service import show

pytestmark = [pytest.mark.load, pytest.mark.timeout(1200)]

STORM_SEC = 60
SWEEPS_OFTEN = "sweep:\n  interval: 10s\n  retry_first: 1s\n"
# Touches more than its limit leaves it, at random: a swap storm of one unit's own.
TOUCH = """
import mmap, random
area = mmap.mmap(-1, 220 << 20)
while True:
    area[random.randrange(len(area) >> 12) << 12] = 1
"""
BURN = "for cpu in $(seq $(nproc)); do (while :; do :; done) & done; sleep 600"
STORMS = {
    "memory": ("-p MemoryHigh=90M python3 /var/tmp/touch.py", "(memory pressure|pages are being swapped).*"),
    "CPU": (f"-p Nice=-20 sh -c '{BURN}'", "CPU pressure.*"),
}
# Looks from inside, with a turn of its own: nothing else, ssh included, gets much done meanwhile.
LOOK = f"""
while :; do
  systemctl show --property=StatusText --value logindguard
  busctl get-property {MANAGER} SweepPauseReason
  sleep 2
done >/run/looked
"""


@pytest.mark.parametrize("kind", STORMS)
def test_sweeps_wait(host: Host, kind: str, result: Result) -> None:
    machine = host.machine
    command, reason = STORMS[kind]
    machine.run("cat >/var/tmp/touch.py", data=TOUCH.encode())
    machine.run("cat >/var/tmp/look.sh", data=LOOK.encode())
    if kind == "memory":  # else what a session leaves in tmpfs is left alone for the swap's sake
        machine.run("swapon /dev/vdb")
    try:
        with host.settings(SWEEPS_OFTEN), host.neighbour("alice", "beside", 60 * MIB) as live:
            swap = f"/sys/fs/cgroup{live.cgroup}/memory.swap.current"
            swapped = machine.read(swap)
            host.mark()
            machine.run("systemd-run --quiet --collect --unit=look -p Nice=-20 sh /var/tmp/look.sh")
            # Dirty, so that a sweep has to come back for it while the storm is on.
            machine.login("alice", "head -c 2M /dev/urandom >storm", timeout_sec=240)
            machine.run(
                f"systemd-run --quiet --collect --unit=storm -p RuntimeMaxSec={STORM_SEC} {command}",
                timeout_sec=240,
            )
            wait_until(
                lambda: machine.run("systemctl is-active storm", check=False, timeout_sec=240).status != 0,
                timeout_sec=STORM_SEC + 240,
                what="the storm is over",
                every_sec=2,
            )
            wait_until(
                lambda: "sweep paused" not in show(machine, "StatusText"),
                timeout_sec=240,
                what="the sweep goes on",
                every_sec=2,
            )
            machine.run("systemctl stop look")
            looked = machine.read("/run/looked")
            records = host.records()
            stolen = host.stolen(live)
            said = re.search(f"sweep paused: {reason}", looked)
            told = machine.journal("--unit", "logindguard", "--since", host.since)
            result(
                said=said[0] if said else None,
                looks=looked.count("precise: "),
                pgsteal_of_the_live_neighbour=stolen,
                stolen_pages_in_records=sum(each.stolen_pages for each in records),
                records=len(records),
            )
            assert said
            assert re.search(f's "{reason}', looked)
            assert re.search(f"The sweep is paused: {reason}", told)
            assert stolen == 0
            assert machine.read(swap) == swapped
            assert sum(each.stolen_pages for each in records) == 0
    finally:
        machine.run("systemctl stop look storm; swapoff -a", check=False, timeout_sec=240)
