"""The plug pulled inside a shielded window: what boots again is as the unit files say."""

from __future__ import annotations

import os
import random
import time

import pytest

from tests.faults.conftest import FULL
from tests.vm.faults.conftest import Result
from tests.vm.faults.ground import OWN_BYTES, expected, ground, held, minima, settles, windows
from tests.vm.faults.watch import warnings
from tests.vm.host import UNIT, Host
from tests.vm.machine import wait_until
from tests.vm.test_service import show

RESETS = int(os.environ.get("LOGINDGUARD_RESETS", "10" if FULL else "2"))


@pytest.mark.timeout(RESETS * 200 + 600)
def test_resets_inside_windows(host: Host, chance: random.Random, result: Result) -> None:
    machine = host.machine
    raised = 0
    with ground(machine):
        settles(machine, expected())
        for _ in range(RESETS):
            with windows(machine) as session:
                ours = held(session)
                raised += len(ours)
                assert min(ours.values()) >= OWN_BYTES  # usage twice and a margin
                assert minima(machine).items() >= {path: str(value) for path, value in ours.items()}.items()
                if chance.random() < 0.5:  # the window goes on, for a moment
                    machine.run(f"systemctl kill --signal=CONT {UNIT}")
                    time.sleep(chance.random() * 0.05)
                machine.reset()
                session.abandon()
            settles(machine, expected())
            wait_until(  # at once, but on a machine so slow that systemd's 90 s are over before
                lambda: show(machine, "ActiveState") == "active", timeout_sec=300, what="the guard runs"
            )
            assert warnings(machine, "--boot") == []
            assert "Put back" not in machine.journal("--boot", "--unit", UNIT)  # there was nothing
        host.mark()
        machine.login("alice", "head -c 1M /dev/urandom >after-a-reset", timeout_sec=180)
        wait_until(lambda: host.records(), timeout_sec=180, what="a record after the last reset")
        settles(machine, expected())
    result(resets=RESETS, values_raised_at_the_reset=raised, values_wrong_after_the_boot=0)
