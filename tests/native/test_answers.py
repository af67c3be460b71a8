"""How fast tools are answered while the kernel is at work on many dying memcgs."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logindguard.kernel.cgroupfs import detect
from tests.bus.conftest import Daemon as Bus
from tests.conftest import Tell
from tests.lab.leak import leaked
from tests.native.launcher import Launcher

pytestmark = [pytest.mark.native, pytest.mark.timeout(900)]

FULL = os.environ.get("LOAD") == "full"
DYING = 100_000 if FULL else 3_000
DEADLINE_SEC = 600
SETTINGS = """
reclaim:
  shared: true
sweep:
  cpu_percent: 10
  grace_dying: 100000000
pressure:
  pause_percent: 100
  resume_percent: 99
"""


@pytest.fixture
def work_dir() -> Iterator[Path]:
    """On a disk: tmp_path may be tmpfs, which is no page cache."""
    directory = Path(f"/var/tmp/lg-answers-{os.getpid()}")
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


class Tool:
    def __init__(self, bus: Bus) -> None:
        self._busctl = ("busctl", f"--address={bus.address}", "--json=short")
        self._object = ("org.logindguard1", "/org/logindguard1")

    def call(self, *arguments: str) -> Any:
        return json.loads(self._run("call", *self._object, "org.logindguard1.Manager", *arguments))

    def introspect_msec(self) -> float:
        begun = time.monotonic()
        self._run("introspect", *self._object)
        return (time.monotonic() - begun) * 1000

    def _run(self, *arguments: str) -> str:
        done = subprocess.run([*self._busctl, *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout


def test_introspection_during_a_sweep(
    launcher: Launcher, bus: Bus, root: str, work_dir: Path, tell: Tell
) -> None:
    hierarchy = detect()
    assert hierarchy is not None
    launcher.config.write_text(launcher.config.read_text() + SETTINGS)
    run = launcher.start("--bus-address", bus.address)
    run.wait_told("READY=1")
    bus.wait_name("org.logindguard1")
    tool = Tool(bus)
    idle_msec = sorted(tool.introspect_msec() for _ in range(20))
    top = hierarchy.mount / root.strip("/")
    with leaked(root=top, parent=top / "p", work_dir=work_dir, count=DYING, bytes_each=4096):
        job = tool.call("Sweep", "a{sv}", "0")["data"][0]
        took_msec = []
        deadline = time.monotonic() + DEADLINE_SEC
        while True:
            time.sleep(0.02)
            took_msec.append(tool.introspect_msec())
            [row] = [each for each in tool.call("ListJobs")["data"][0] if each["id"]["data"] == job]
            if row["state"]["data"] != "running":
                break
            assert time.monotonic() < deadline, row
        told = {name: value["data"] for name, value in row.items()}
    tell(
        f"busctl introspect, {len(took_msec)} times while a sweep over {DYING} dying memcgs ran: median "
        f"{statistics.median(took_msec):.1f} ms, longest {max(took_msec):.1f} ms (idle "
        f"{statistics.median(idle_msec):.1f} ms); the sweep took "
        f"{(told['finished_usec'] - told['started_usec']) / 1e6:.1f} s, dying {told['dying_before']} -> "
        f"{told['dying_after']}, {told['outcome']}"
    )
    assert told["freed_bytes"] > 0, told
    status, said = run.end()
    assert status == 0
    assert "Traceback" not in said
