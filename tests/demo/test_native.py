"""`make demo-native` for real: what a person sees, and that nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from logindguard.kernel.cgroupfs import detect
from tests.conftest import Tell
from tests.demo.host import PREFIX, own_place

pytestmark = [pytest.mark.native, pytest.mark.timeout(300)]

CHECKOUT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "tests.demo.native"]
DEADLINE_SEC = 60.0


def left_behind(pid: int) -> list[Path]:
    hierarchy = detect()
    assert hierarchy is not None
    places = (hierarchy.mount / f"{PREFIX}{pid}", Path("/var/tmp") / f"{PREFIX}{pid}")
    return [place for place in places if place.exists()]


def test_it_shows_the_guard_at_work(tell: Tell) -> None:
    started = time.monotonic()
    process = subprocess.Popen(
        COMMAND, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    output, errors = process.communicate()
    tell(f"{time.monotonic() - started:.0f} s\n{output}")
    assert process.returncode == 0, output + errors
    assert errors == ""
    assert "dying memcgs after" in output or "There is nothing for it" in output
    assert max(len(line) for line in output.splitlines()) <= 80
    assert left_behind(process.pid) == []


@pytest.fixture
def running() -> Iterator[subprocess.Popen[str]]:
    """A demo that has made its cgroup."""
    process = subprocess.Popen(
        COMMAND,
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "happens in the cgroup" in line:
            break
    yield process
    if process.poll() is None:
        process.kill()
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()


def wait_for_leak(process: subprocess.Popen[str]) -> None:
    """Until cgroups come and go, or the demo has ended on a kernel where it shows none."""
    while process.poll() is None and not list(Path("/var/tmp").glob(f"{PREFIX}{process.pid}/*/leak")):
        time.sleep(0.01)


@pytest.mark.parametrize("group", [True, False])
@pytest.mark.parametrize("at_once", [True, False])
def test_an_interrupted_one_cleans_up(running: subprocess.Popen[str], group: bool, at_once: bool) -> None:
    """Ctrl-C reaches all its processes, kill(1) only itself."""
    if not at_once:
        wait_for_leak(running)
    if running.poll() is None:
        (os.killpg if group else os.kill)(running.pid, signal.SIGINT)
    output, errors = running.communicate(timeout=DEADLINE_SEC)
    if at_once or running.returncode:
        assert running.returncode == 128 + signal.SIGINT, errors
        assert "Interrupted; what was made has been removed." in output
    else:
        assert "There is nothing for it" in output
    assert left_behind(running.pid) == []


def test_the_next_one_removes_what_a_killed_one_left(running: subprocess.Popen[str]) -> None:
    running.kill()
    running.communicate(timeout=DEADLINE_SEC)  # whatever it had started ends by itself
    assert left_behind(running.pid)
    with own_place():
        assert left_behind(running.pid) == []


def test_without_root_it_says_so() -> None:
    script = (
        "import os, sys; from tests.demo import native;"
        " os.setgroups([]); os.setuid(65534); sys.exit(native.main([]))"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True)
    assert run.returncode == os.EX_UNAVAILABLE
    assert "needs root" in " ".join(run.stdout.split())
    assert run.stderr == ""
