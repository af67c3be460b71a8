"""Others write memory.min while the guard holds it, and --restore comes in between: systemd's value wins."""

from __future__ import annotations

import json

import pytest

from tests.vm.faults.conftest import Result
from tests.vm.faults.ground import CGROUP, expected, ground, held, minima, settles, windows
from tests.vm.host import MIB, UNIT, Host
from tests.vm.machine import wait_until

pytestmark = [pytest.mark.load, pytest.mark.timeout(900)]

SET_BYTES = 48 * MIB
RESTORE = "/usr/libexec/logindguardd --restore"


def ledger_is_empty(host: Host) -> bool:
    return host.machine.run("test -e /run/logindguard/ledger", check=False).status != 0


def test_values_set_during_a_window(host: Host, result: Result) -> None:
    """Once the window goes on to its end, once the guard is killed in it."""
    machine = host.machine
    bare = f"{CGROUP}/lgfault-bare.service"
    changed = expected() | {bare: str(SET_BYTES)}
    with ground(machine), windows(machine) as session:
        for end in ("go", "kill"):
            machine.run("systemctl set-property --runtime lgfault-bare.service MemoryMin=0")
            settles(machine, expected())
            ours = held(session)
            assert bare in ours
            machine.run(f"systemctl set-property --runtime lgfault-bare.service MemoryMin={SET_BYTES}")
            machine.run("systemctl daemon-reload")
            assert minima(machine)[bare] == str(SET_BYTES)
            if end == "go":
                session.ask("go")
            else:
                machine.run(f"systemctl kill --signal=KILL {UNIT}")
            wait_until(lambda: ledger_is_empty(host), timeout_sec=30, what="the window is over")
            settles(machine, changed)
        wait_until(
            lambda: machine.run(f"systemctl is-active {UNIT}", check=False).status == 0,
            timeout_sec=60,
            what="the guard is back",
        )
    result(values_set_by_systemd_lost=0, values_left_changed=0)


def test_restore_by_hand_during_a_window(host: Host, result: Result) -> None:
    """It waits for the window, and gives up with a sentence: what is shielded stays shielded."""
    machine = host.machine
    with ground(machine), windows(machine) as session:
        settles(machine, expected())
        ours = {path: str(value) for path, value in held(session).items()}
        restored = machine.run(RESTORE, check=False)
        assert restored.status == 71
        assert "another process holds the lock" in restored.stderr
        assert minima(machine).items() >= ours.items()
        assert json.loads(machine.read("/run/logindguard/ledger"))
        session.ask("go")
        wait_until(lambda: ledger_is_empty(host), timeout_sec=30, what="the window is over")
        settles(machine, expected())
        assert machine.run(RESTORE).status == 0
    result(shields_stripped=0)
