"""The running daemon under the calls of many programs of one user, and under noise.

`make test-load` sends what the figures in README.md were measured with; otherwise it is less.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bus.conftest import Daemon as Bus
from tests.conftest import Tell
from tests.native.launcher import CHECKOUT, Launcher, Run

pytestmark = [pytest.mark.native, pytest.mark.timeout(900)]

FULL = os.environ.get("LOAD") == "full"
SECONDS = 30 if FULL else 5
MESSAGES = 100_000 if FULL else 5_000
CLIENTS = 200
NOBODY = 65534
GROWTH_KIB = 2 << 10
PROGRAM = (Path(__file__).parent / "flood.py").read_text()  # that user need not be able to read the checkout


@pytest.fixture
def bus(short_dir: Path) -> Iterator[Bus]:
    """With no more allowed than a system bus allows."""
    short_dir.chmod(0o711)  # ordinary users connect too
    bus = Bus(short_dir, policy=CHECKOUT / "dbus" / "org.logindguard1.conf")
    yield bus
    bus.kill()


@pytest.fixture
def run(launcher: Launcher, bus: Bus) -> Run:
    run = launcher.start("--bus-address", bus.address)
    run.wait_told("READY=1")
    bus.wait_name("org.logindguard1")
    return run


def flood(*arguments: object) -> Any:
    done = subprocess.run(
        [
            *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
            *("/usr/bin/python3", "-W", "ignore", "-c", PROGRAM, *map(str, arguments)),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=850,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def rss_kib(run: Run) -> int:
    status = Path(f"/proc/{run.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


def statistics(bus: Bus) -> str:
    call = ("busctl", f"--address={bus.address}", "call", "org.logindguard1", "/org/logindguard1")
    done = subprocess.run(
        [*call, "org.logindguard1.Manager", "GetStatistics"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def clean(run: Run) -> None:
    status, said = run.end()
    assert status == 0
    assert "Traceback" not in said
    assert "A call of" not in said  # how an internal error is told


def test_many_callers_at_once(run: Run, bus: Bus, tell: Tell) -> None:
    flood("calls", bus.address, CLIENTS, 3, 1)
    before_kib = rss_kib(run)
    told = flood("calls", bus.address, CLIENTS, SECONDS, 2)
    growth_kib = rss_kib(run) - before_kib
    tell(
        f"{CLIENTS} callers for {SECONDS} s: {told['calls']} calls, median {told['median_msec']} ms, "
        f"longest {told['max_msec']} ms, resident set {before_kib / 1024:.1f} MiB + {growth_kib} KiB; "
        f"{told['errors']}"
    )
    allowed = {"LimitsExceeded", "AccessDenied"}  # the latter of Sweep, which only root may
    assert {error.rpartition(".")[2] for error in told["errors"]} <= allowed
    assert [
        error for error in told["errors"] if "AccessDenied" in error and not error.startswith("Sweep")
    ] == []
    assert growth_kib < GROWTH_KIB
    clean(run)


def test_noise(run: Run, bus: Bus, tell: Tell) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    flood("noise", bus.address, 3_000, seed ^ 1)
    before_kib = rss_kib(run)
    told = flood("noise", bus.address, MESSAGES, seed)
    growth_kib = rss_kib(run) - before_kib
    tell(
        f"{told['sent']} random messages of an ordinary user ({told['answered']} answered, {told['cut']} cut "
        f"off by the bus), seed {seed}: resident set {before_kib / 1024:.1f} MiB + {growth_kib} KiB"
    )
    assert '"writes_total" t 0' in statistics(bus)
    assert growth_kib < GROWTH_KIB
    clean(run)
