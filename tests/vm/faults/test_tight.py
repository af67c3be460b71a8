"""A slice just below its memory.max, with a sibling that grows at any moment: the shield kills nobody."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.lab import tight
from tests.vm.faults.conftest import Result
from tests.vm.host import MIB, Host
from tests.vm.machine import Machine

TRIES = int(os.environ.get("LOGINDGUARD_TRIES", "1000"))
BATCH = 50
SLICE = "lgtight.slice"
LIMIT = 192 * MIB
MOST_BYTES = 110 * MIB
FILES = "/var/lgtight"
FILE_BYTES = 96 * MIB
READ_BYTES = 8 * MIB

pytestmark = [pytest.mark.load, pytest.mark.timeout(5400)]


def oom_kills(machine: Machine) -> int:
    events = machine.read(f"/sys/fs/cgroup/{SLICE}/memory.events")
    [count] = re.findall(r"^oom_kill (\d+)$", events, re.MULTILINE)
    return int(count)


def test_no_kill_that_would_not_have_been(host: Host, seed: int, result: Result) -> None:
    """As many tries with the guard stopped first, then with it."""
    machine = host.machine
    machine.put(Path(tight.__file__), "/var/tmp/tight.py")
    machine.run(
        f"head -c {FILE_BYTES} /dev/zero >{FILES}-live; head -c {READ_BYTES} /dev/zero >{FILES}-read; sync;"
        f" systemctl set-property --runtime {SLICE} MemoryMax={LIMIT}",
        timeout_sec=120,
    )
    kills = {}
    try:
        for guard in ("stop", "start"):
            host.guard(guard)
            machine.run(
                f"systemd-run --quiet --collect --unit=lgtight --slice={SLICE} python3 /var/tmp/tight.py"
                f" --file {FILES}-live --most {MOST_BYTES} --seed {seed}"
            )
            before = oom_kills(machine)
            host.mark()
            _ends(machine, TRIES)
            assert machine.run("systemctl is-active lgtight", check=False).status == 0
            kills[guard] = oom_kills(machine) - before
            machine.run("systemctl stop lgtight")
        records = [each for each in host.records() if each.target == f"/{SLICE}"]
    finally:
        machine.run(f"systemctl stop lgtight; systemctl revert {SLICE}; rm -f {FILES}-*", check=False)
    opened = [each for each in records if each.writes]
    result(
        tries=TRIES,
        oom_kills_without=kills["stop"],
        oom_kills_with=kills["start"],
        windows_opened=len(opened),
        held_back=sum("headroom" in each.reason for each in records),
        stolen_pages=sum(each.stolen_pages for each in opened),
    )
    assert kills["start"] <= kills["stop"]
    assert opened  # else nothing was tried


def _ends(machine: Machine, count: int) -> None:
    """So many scopes that read a file and end, within the limit."""
    for _ in range(0, count, BATCH):
        machine.run(
            f"for n in $(seq {BATCH}); do dd status=none iflag=nocache count=0 if={FILES}-read;"
            f" systemd-run --quiet --scope --slice={SLICE} cat {FILES}-read >/dev/null; done",
            timeout_sec=600,
        )
