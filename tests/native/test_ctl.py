"""The command with the real daemon on this machine's kernel, whichever mode that allows."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from logindguard.ctl.exits import Exit
from tests.bus.conftest import Daemon as Bus

from .launcher import CHECKOUT, DEADLINE_SEC, Launcher, Run

pytestmark = pytest.mark.native


class Command:
    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def __call__(self, *argv: str) -> subprocess.CompletedProcess[str]:
        ran = subprocess.run(
            [sys.executable, "-m", "logindguard.ctl", *argv],
            cwd=CHECKOUT,
            env={
                "PATH": "/usr/bin:/bin",
                "PYTHONDONTWRITEBYTECODE": "1",
                "DBUS_SYSTEM_BUS_ADDRESS": self._bus.address,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SEC,
        )
        assert "Traceback" not in ran.stderr
        return ran

    def json(self, *argv: str) -> Any:
        ran = self(*argv, "--json=short")
        assert (ran.returncode, ran.stderr) == (0, "")
        return json.loads(ran.stdout)


@pytest.fixture
def command(bus: Bus) -> Command:
    return Command(bus)


@pytest.fixture
def run(launcher: Launcher, bus: Bus, command: Command) -> Iterator[Run]:
    run = launcher.start("--bus-address", bus.address)
    run.wait_told("READY=1")
    deadline = time.monotonic() + DEADLINE_SEC
    while command("check", "--threshold=100000000").returncode != 0:  # it comes onto the bus after that
        assert time.monotonic() < deadline
    yield run
    assert run.end()[0] == 0


def test_looking(run: Run, command: Command, root: str) -> None:
    found = command.json("status", "-n0")
    assert found["source"] == "service"
    assert found["cgroup_version"] in (1, 2)
    assert isinstance(command.json("list"), list)
    assert command.json("top")["dying_count"] >= 0
    human = command("status", "-n0")
    assert human.stdout.startswith("● logindguard")
    assert f"Mode: {found['mode']} ({found['mode_reason']})" in human.stdout
    checks = json.loads(command("doctor", "--json=short").stdout)["checks"]
    assert {"service", "mode", "cgroup"} <= {check["check"] for check in checks}


def test_steering(run: Run, command: Command) -> None:
    observes = command.json("status", "-n0")["mode"] == "observe"
    swept = command("sweep", "--wait")
    assert swept.returncode == (Exit.UNAVAILABLE if observes else Exit.OK)
    assert (swept.stderr if observes else swept.stdout).count("\n") == 1
    assert command("pause", "--for=1h").stdout == "Paused for 1h.\n"
    assert command.json("status", "-n0")["paused"] is True
    assert command("resume").returncode == 0
    assert command.json("status", "-n0")["paused"] is False
    assert command("restore").stdout == "Nothing was left to put back.\n"


def test_settings_that_are_read_again(run: Run, command: Command, launcher: Launcher) -> None:
    good = launcher.config.read_text()
    launcher.config.write_text(f"{good}sweep:\n  interval: soon\n")
    refused = command("reload")
    assert refused.returncode == Exit.SETTINGS
    assert f"{launcher.config}:3: sweep.interval expects a duration" in refused.stderr
    launcher.config.write_text(good)
    assert command("reload").returncode == 0
