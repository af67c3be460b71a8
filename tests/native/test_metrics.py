"""The daemon's textfile and samples, on this machine's kernel."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from logindguard.record.journal import Kind
from tests.bus.conftest import Daemon as Bus
from tests.native.launcher import DEADLINE_SEC, Launcher
from tests.unit.test_metrics import parsed, value

pytestmark = pytest.mark.native


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + DEADLINE_SEC
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return path.read_text()


def test_a_textfile_and_samples_while_it_runs(launcher: Launcher, bus: Bus, tmp_path: Path) -> None:
    path = tmp_path / "logindguard.prom"
    with launcher.config.open("a") as config:
        config.write(f"metrics:\n  textfile: {path}\n  sample: 1s\n")
    run = launcher.start("--json", "--bus-address", bus.address)
    series = parsed(wait_for(path))
    assert value(series, "up") == 1
    assert sum(count for (name, _), count in series.items() if name == "mode") == 1
    assert value(series, "dying_memcgs") >= 0
    sample = run.wait_entry(MESSAGE_ID=Kind.SAMPLE)
    assert sample["PRIORITY"] == "7"
    assert int(sample["LOGINDGUARD_TEARDOWNS_TOTAL"]) == 0
    assert run.end() == (0, run.ended()[1])
    assert not path.exists()
    assert "Traceback" not in run.ended()[1]
