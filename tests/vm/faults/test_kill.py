"""SIGKILL inside a shielded window, again and again: no memory.min stays changed."""

from __future__ import annotations

import json
import os

import pytest

from tests.vm.faults.conftest import Result
from tests.vm.machine import Machine
from tests.vm.test_kernel import WHERE, put_checkout

CYCLES = int(os.environ.get("LOGINDGUARD_KILL_CYCLES", "50"))


@pytest.mark.timeout(CYCLES * 40 + 300)
def test_a_killed_window_is_put_back(machine: Machine, seed: int, result: Result) -> None:
    put_checkout(machine)
    # The machine's own guard sees the whole tree: it must not open windows on this ground as well.
    machine.run("systemctl stop logindguard.service")
    try:
        killed = machine.run(
            f"python3 {WHERE}/tests/lab/kill_in_window.py --cycles {CYCLES} --seed {seed}",
            check=False,
            timeout_sec=CYCLES * 40 + 200,
        )
    finally:
        machine.run("systemctl start logindguard.service")
    told = json.loads(killed.stdout)
    result(cycles=told["cycles"], killed_inside_a_window=told["proved"], wrong=told["wrong"])
    assert told["wrong"] == []
    assert told["proved"] >= CYCLES * 6 // 10
