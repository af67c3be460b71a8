"""The command on a real terminal, tmux's: what stands on the screen, and what is left of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bus.conftest import Daemon as Bus

from .fake_service import RESIDUES, Running, residue

CHECKOUT = Path(__file__).parents[2]
DEADLINE_SEC = 60.0
JOB = {"kind": "sweep", "started_usec": time.time_ns() // 1000, "dying_before": 1000, "state": "running"}


class Tmux:
    """One window with a shell in it."""

    def __init__(
        self, directory: Path, environment: dict[str, str], columns: int = 80, lines: int = 24
    ) -> None:
        self._socket = directory / "tmux"
        self._environment = environment
        self._run(
            *("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(lines)),
            "PS1='shell> ' exec bash --norc -i",
        )

    def _run(self, *arguments: str) -> str:
        return subprocess.run(
            ["tmux", "-S", self._socket, *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=DEADLINE_SEC,
            env=self._environment,
        ).stdout

    def type(self, text: str) -> None:
        self._run("send-keys", "-l", text)

    def press(self, key: str) -> None:
        self._run("send-keys", key)

    def enter(self, text: str) -> None:
        self.type(text)
        self.press("Enter")

    def resize(self, columns: int, lines: int) -> None:
        self._run("resize-window", "-x", str(columns), "-y", str(lines))

    def screen(self) -> str:
        return self._run("capture-pane", "-p")

    def wait(self, condition: Callable[[str], object]) -> str:
        deadline = time.monotonic() + DEADLINE_SEC
        while not condition(screen := self.screen()):
            assert time.monotonic() < deadline, f"not what was waited for:\n{screen}"
            time.sleep(0.05)
        return screen

    def close(self) -> None:
        self._run("kill-server")


@pytest.fixture
def tmux(bus: Bus) -> Iterator[Tmux]:
    directory = Path(tempfile.mkdtemp(prefix="lg-tmux-"))
    environment = {
        "PATH": "/usr/bin:/bin",
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(CHECKOUT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "DBUS_SYSTEM_BUS_ADDRESS": bus.address,
        "HOME": str(directory),
        "HISTFILE": "",  # nothing is written there when the window closes
        "CTL": f"{sys.executable} -m logindguard.ctl",
    }
    tmux = Tmux(directory, environment)
    try:
        tmux.wait(lambda screen: "shell>" in screen)
        yield tmux
    finally:
        tmux.close()
        shutil.rmtree(directory)


def test_top(tmux: Tmux, running: Running) -> None:
    tmux.enter("cd $HOME; stty -a >before; clear; $CTL top -d 200ms")
    first = tmux.wait(lambda screen: "logindguard precise" in screen)
    lines = first.splitlines()
    assert "1249 dying memcgs, 1.2G held, 5G released" in lines[0]
    assert lines[2].split() == ["SLICE", "DYING", "CHANGE", "CACHE", "HISTORY"]
    assert lines[3].startswith("system.slice")
    assert lines[8].startswith("q quit")
    running.service.residues = [RESIDUES[0], RESIDUES[1], residue("/system.slice", 2000, 4096)]
    changed = tmux.wait(lambda screen: "+766" in screen)
    assert "█" in changed
    tmux.press("p")
    tmux.wait(lambda screen: row(screen, "user.slice ") < row(screen, "user.slice/user-61001.slice"))
    tmux.press("d")
    tmux.resize(120, 24)
    tmux.press("+")
    tmux.wait(lambda screen: "every 1.2s" in screen)
    tmux.press("-")
    tmux.wait(lambda screen: "every 200ms" in screen)
    for key in ("c", "Space", "Up", "x"):  # two of which mean nothing
        tmux.press(key)
    tmux.resize(50, 10)
    small = tmux.wait(
        lambda screen: all(len(line) <= 50 for line in screen.splitlines()) and "q quit" in screen
    )
    assert len(small.splitlines()) <= 10
    tmux.press("q")
    tmux.wait(lambda screen: "SLICE" not in screen and "shell>" in screen)
    tmux.enter("clear; stty -a >after; sed -i '1d' before after; cmp before after && echo same")
    tmux.wait(lambda screen: "same" in screen.splitlines())


def row(screen: str, begins: str) -> int:
    return next((at for at, line in enumerate(screen.splitlines()) if line.startswith(begins)), 99)


def test_top_is_stopped_and_goes_on(tmux: Tmux, running: Running) -> None:
    tmux.enter("clear; $CTL top -d 200ms")
    tmux.wait(lambda screen: "logindguard precise" in screen)
    tmux.press("C-z")
    tmux.wait(lambda screen: "Stopped" in screen)
    tmux.enter("fg")
    tmux.wait(lambda screen: "logindguard precise" in screen)
    tmux.press("C-c")
    tmux.wait(lambda screen: "logindguard precise" not in screen)
    tmux.enter("echo status $?")
    tmux.wait(lambda screen: "status 130" in screen)


def test_top_says_why_it_ends(tmux: Tmux, running: Running) -> None:
    tmux.enter("clear; $CTL top -d 200ms; echo status $?")
    tmux.wait(lambda screen: "logindguard precise" in screen)
    running.service.errors["ListResidues"] = "org.freedesktop.DBus.Error.ServiceUnknown"
    screen = tmux.wait(lambda screen: "status 69" in screen)
    assert "The service has just ended." in screen
    assert "logindguard precise" not in screen


def test_sweep_shows_its_progress(tmux: Tmux, running: Running) -> None:
    going = [{**JOB, "dying_after": dying, "freed_bytes": (1000 - dying) << 12} for dying in (1000, 620, 150)]
    running.service.job_states = going[:2]
    tmux.enter("clear; $CTL sweep --wait; echo status $?")
    screen = tmux.wait(lambda screen: " 38%" in screen)
    assert "━━━" in screen
    assert "1000 -> 620 dying memcgs, 1.5M released" in screen
    running.service.job_states = [going[2]]
    tmux.wait(lambda screen: " 85%" in screen)
    running.service.job_states = [
        {
            **JOB,
            "state": "done",
            "dying_after": 3,
            "freed_bytes": 4 << 20,
            "outcome": "partial",
            "reason": "dirty",
        }
    ]
    screen = tmux.wait(lambda screen: "status 0" in screen)
    assert "Job 7 is done: released 4M, dying memcgs 1000 -> 3; dirty." in screen
    assert "━" not in screen


def test_an_interrupted_wait_cancels_the_job(tmux: Tmux, running: Running) -> None:
    running.service.job_states = [{**JOB, "dying_after": 900}]
    tmux.enter("clear; $CTL sweep --wait")
    tmux.wait(lambda screen: " 10%" in screen)
    tmux.press("C-c")
    tmux.wait(lambda screen: "Canceled job 7." in screen)
    tmux.enter("echo status $?")
    tmux.wait(lambda screen: "status 130" in screen)
    assert ("CancelJob", [7]) in running.service.bodies


def test_monitor(tmux: Tmux, running: Running) -> None:
    from dbus_next import Variant

    tmux.enter("clear; $CTL monitor -n 3; echo status $?")
    tmux.wait(lambda screen: "Waiting for reclaims" in screen)
    reclaimed = {
        "id": Variant("s", "9f3cbb00" + "0" * 24),
        "way": Variant("s", "after"),
        "outcome": Variant("s", "released"),
        "unit_class": Variant("s", "session"),
        "slice": Variant("s", "/user.slice"),
        "dying_before": Variant("t", 2),
        "dying_after": Variant("t", 0),
        "freed_bytes": Variant("t", 4 << 20),
        "stolen_pages": Variant("t", 0),
    }
    running.do(running.service.signal, "Reclaimed", "a{sv}", reclaimed)
    running.do(running.service.signal, "JobFinished", "us", 7, "done")
    running.do(running.service.signal, "ModeChanged", "ss", "observe", "because")
    screen = tmux.wait(lambda screen: "status 0" in screen)
    assert "9f3cbb00 after: user.slice released 4M (session), dying 2 -> 0" in screen
    assert "Job 7: done" in screen
    assert "Mode observe: because" in screen


def test_a_long_table_is_paged(tmux: Tmux, running: Running) -> None:
    running.service.residues = [residue(f"/system.slice/a-{at}.slice", at, 0) for at in range(100)]
    tmux.enter("clear; $CTL list")
    tmux.wait(lambda screen: "a-99.slice" in screen and "a-1.slice" not in screen)
    tmux.press("G")
    tmux.wait(lambda screen: "100 cgroups listed." in screen)
    tmux.press("q")
    tmux.enter("clear; $CTL list --no-pager | head -1; echo ${PIPESTATUS[0]}")
    tmux.wait(lambda screen: "CGROUP" in screen and "0" in screen.splitlines())


def test_closed_streams_and_poor_locales() -> None:
    command = f"{sys.executable} -m logindguard.ctl"
    for script, status in (
        (f"{command} --help <&- >&- 2>&-", 0),
        (f"PYTHONIOENCODING=latin-1 {command} config --no-legend >/dev/null", 0),
        (f"{command} --help >/dev/full", 74),
    ):
        ran = subprocess.run(["sh", "-c", script], cwd=CHECKOUT, check=False, timeout=DEADLINE_SEC)
        assert ran.returncode == status, script


def test_it_works_from_a_checkout_with_nothing_installed() -> None:
    """Python without its site packages: no dbus-next, no YAML, no systemd."""
    for verb in ("doctor", "list", "status"):
        ran = subprocess.run(
            [sys.executable, "-S", "-m", "logindguard.ctl", verb],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SEC,
            env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
        )
        assert ran.returncode in (0, 1)
        assert ran.stdout
        assert "python3-dbus-next is not installed: read from the kernel directly." in ran.stderr


INTERRUPTED = """
import runpy, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "logindguard.ctl.app":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize(
    "start", ['run_module("logindguard.ctl", run_name="__main__")', 'run_path("debian/logindguardctl")']
)
def test_an_interrupt_while_it_is_loaded(start: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", f"{INTERRUPTED}runpy.{start}"], cwd=CHECKOUT, capture_output=True, timeout=60
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, b"", b"")
