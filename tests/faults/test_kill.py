"""SIGKILL at any line of a window or a restore: every value is its administrator's afterwards."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.conftest import Tell
from tests.faults.conftest import Scale
from tests.faults.result import Keep
from tests.native.launcher import CHECKOUT


@pytest.mark.timeout(900)
def test_a_killed_window_is_put_back(scale: Scale, seed: int, tell: Tell, keep: Keep) -> None:
    cycles = scale(100, 1000)
    ended = subprocess.run(
        [sys.executable, "-m", "tests.faults.kill", "--cycles", str(cycles), "--seed", str(seed)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    assert ended.stdout, ended.stderr
    told = json.loads(ended.stdout)
    left, wrong = told["left_raised"], told["wrong"]
    tell(f"LOGINDGUARD_SEED={seed}: {left} of {cycles} kills left values raised, {len(wrong)} stayed wrong")
    keep("kill_native", told)
    assert wrong == []
    assert left >= cycles // 10
