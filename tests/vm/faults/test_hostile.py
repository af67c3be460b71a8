"""A user who makes thousands of cgroups that look like others' sessions: nobody else loses by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from logindguard.model import ReclaimRecord
from tests.lab import hostile
from tests.vm.faults.conftest import Result
from tests.vm.faults.ground import expected, ground, settles
from tests.vm.faults.watch import warnings
from tests.vm.host import FILES, READ_BYTES, Host
from tests.vm.machine import wait_until
from tests.vm.test_service import show

pytestmark = [pytest.mark.load, pytest.mark.timeout(900)]

CGROUPS = 3_000
SECONDS = 60
LOGINS = 5
MOST_RSS_KIB = 64 << 10
PROGRAM = "/var/tmp/hostile.py"
SAYS = "/tmp/hostile.says"
OWN = "/user.slice/user-1000.slice/user@1000.service/"


def test_nobody_elses_teardowns_wait(host: Host, result: Result) -> None:
    machine = host.machine
    host.make_files("hostile", LOGINS)
    machine.put(Path(hostile.__file__), PROGRAM, mode=0o755)
    run = (
        "systemd-run --user --quiet --collect --unit=evil -p Delegate=yes"
        f" sh -c 'exec python3 {PROGRAM} --cgroups {CGROUPS} --seconds {SECONDS} >{SAYS}'"
    )

    def says(line: int) -> dict[str, Any]:
        lines = wait_until(
            lambda: (machine.run(f"cat {SAYS}", check=False).stdout.splitlines() + [""] * 2)[line],
            timeout_sec=240,
            what="the evil unit says so",
            every_sec=1,
        )
        said: dict[str, Any] = json.loads(lines)
        return said

    with ground(machine), machine.session("alice", "sh") as evil:
        evil.ask(f"{run} && echo started")
        made = says(0)["made"]
        pid = show(machine, "MainPID")
        host.mark()
        commands = [f"cat {FILES}/hostile-{n} >/dev/null" for n in range(LOGINS)]
        machine.logins("bob", commands, parallel=1, timeout_sec=240)
        others = wait_until(
            lambda: _of(host, "/user.slice", LOGINS), timeout_sec=120, what="bob's records", every_sec=2
        )
        told = says(1)
        base = told["base"].removeprefix("/sys/fs/cgroup")
        hers = {f"{base}/{hostile.name(n)}": str(told["kept_bytes"]) for n in range(told["games"])}
        settles(machine, expected() | hers)
        rss_kib = int(machine.run(f"awk '/^VmRSS/ {{print $2}}' /proc/{pid}/status").stdout)
        warned = warnings(machine, "--since", host.since)
        records = host.records()
        result(
            cgroups_made=made,
            came_and_went=told["came"],
            freed_of_others_mib=round(sum(others) / (1 << 20), 1),
            rss_mib=round(rss_kib / 1024, 1),
            records=len(records),
            warnings=warned[:3],
        )
        assert rss_kib <= MOST_RSS_KIB
        assert show(machine, "MainPID") == pid
        assert warned == []
        # Whatever she calls hers, it is told as hers, or as nobody's.
        forged = [t for r in records for t in r.teardowns if t.path.startswith(OWN)]
        assert {t.uid for t in forged} <= {None, 1000}
        assert sum(r.stolen_pages for r in records) == 0
        evil.ask("systemctl --user stop evil; echo stopped")
    assert machine.login("bob", "echo in").stdout == "in\n"


def _of(host: Host, below: str, count: int) -> list[int]:
    """Bytes freed in records of bob's sessions, once each has one and most of what they read is freed."""
    found = [(r, _sessions(r)) for r in host.records() if r.target.startswith(below) and _sessions(r)]
    units = {unit for _, units in found for unit in units}
    freed = [r.freed_bytes for r, _ in found]
    return freed if len(units) >= count and sum(freed) >= count * READ_BYTES // 2 else []


def _sessions(record: ReclaimRecord) -> set[str]:
    """Those of bob."""
    return {t.unit for t in record.teardowns if t.uid == 1001 and t.unit.startswith("session-")}
