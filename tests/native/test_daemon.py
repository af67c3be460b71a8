"""The daemon as a process on this machine's kernel, confined to a cgroup of ours, on a bus of ours."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from logindguard.kernel.cgroupfs import detect
from tests.bus.conftest import Daemon as Bus
from tests.conftest import Tell

pytestmark = pytest.mark.native

CHECKOUT = Path(__file__).parents[2]
CLK_TCK = os.sysconf("SC_CLK_TCK")
DEADLINE_SEC = 20.0


@pytest.fixture
def short_dir() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="lg-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def root() -> Iterator[str]:
    """The subtree that the program is confined to."""
    hierarchy = detect()
    assert hierarchy is not None, "no memory controller here"
    path = f"/lgtest-{os.getpid()}"
    directory = hierarchy.mount / path.strip("/")
    directory.mkdir()
    yield path
    directory.rmdir()


@dataclass
class Run:
    """One running daemon and what it told its service manager."""

    process: subprocess.Popen[str]
    manager: socket.socket
    told: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)  # lines on stderr so far

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)

    def wait_said(self, words: str) -> None:
        deadline = time.monotonic() + DEADLINE_SEC
        while not any(words in line for line in self.said):
            assert time.monotonic() < deadline, f"{words!r} was not said, only {self.said}"
            time.sleep(0.05)

    def wait_told(self, words: str) -> None:
        deadline = time.monotonic() + DEADLINE_SEC
        while not any(words in line for line in self.told):
            self.manager.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                self.told += self.manager.recv(4096).decode().splitlines()
            except TimeoutError:
                pytest.fail(f"{words} was not told in {DEADLINE_SEC} s, only {self.told}")

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> tuple[int, str]:
        self.process.wait(timeout=DEADLINE_SEC)
        self._reader.join(DEADLINE_SEC)
        return self.process.returncode, "".join(self.said)


class Launcher:
    def __init__(self, directory: Path, root: str) -> None:
        self.directory = directory
        self.config = directory / "config.yaml"
        self.config.write_text(f"roots: [{root}]\n")
        self.runs: list[Run] = []

    def start(self, *arguments: str, **environment: str) -> Run:
        path = self.directory / f"notify-{len(self.runs)}"
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        manager.bind(str(path))
        run = Run(launch(self.directory, *arguments, NOTIFY_SOCKET=str(path), **environment), manager)
        self.runs.append(run)
        return run

    def close(self) -> None:
        for run in self.runs:
            run.manager.close()
            if run.process.poll() is None:
                run.process.kill()
            run.ended()
            assert run.process.stderr is not None
            run.process.stderr.close()


def launch(directory: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    given = [
        *("--config", str(directory / "config.yaml")),
        *("--runtime-directory", str(directory / "run")),
        *arguments,
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "logindguard", *given],
        cwd=CHECKOUT,
        env={"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", **environment},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def bus(short_dir: Path) -> Iterator[Bus]:
    bus = Bus(short_dir)
    yield bus
    bus.kill()


@pytest.fixture
def launcher(short_dir: Path, root: str) -> Iterator[Launcher]:
    launcher = Launcher(short_dir, root)
    yield launcher
    launcher.close()


def test_ready_status_and_a_clean_stop(launcher: Launcher, bus: Bus) -> None:
    run = launcher.start("--bus-address", bus.address)
    run.wait_told("READY=1")
    run.wait_told("STATUS=")
    status, errors = run.end()
    run.wait_told("STOPPING=1")
    assert status == 0
    assert "Mode " in errors
    assert "Traceback" not in errors


def test_it_stops_at_any_moment_of_its_start(launcher: Launcher, bus: Bus) -> None:
    """The bus connection is being made then: a stop that comes with its answer must not be lost."""
    for msec in range(0, 60, 4):
        run = launcher.start("--bus-address", bus.address)
        run.wait_told("READY=1")
        time.sleep(msec / 1000)
        status, errors = run.end()
        assert status == 0
        assert "Traceback" not in errors
        assert "never retrieved" not in errors


def test_it_pings_the_watchdog(launcher: Launcher, bus: Bus) -> None:
    run = launcher.start("--bus-address", bus.address, WATCHDOG_USEC="400000")
    run.wait_told("READY=1")
    run.told.clear()
    run.wait_told("WATCHDOG=1")
    run.told.clear()
    run.wait_told("WATCHDOG=1")


def test_reload_keeps_the_old_settings_when_the_new_are_wrong(launcher: Launcher, bus: Bus) -> None:
    run = launcher.start("--bus-address", bus.address)
    run.wait_told("READY=1")
    good = launcher.config.read_text()
    launcher.config.write_text(good + "sweep:\n  cpu_percent: much\n")
    run.told.clear()
    run.process.send_signal(signal.SIGHUP)
    run.wait_told("RELOADING=1")
    run.wait_told("READY=1")
    launcher.config.write_text(good + "sweep:\n  cpu_percent: 3\n")
    run.told.clear()
    run.process.send_signal(signal.SIGHUP)
    run.wait_told("READY=1")
    status, errors = run.end()
    assert status == 0
    assert f"{launcher.config}:3: sweep.cpu_percent" in errors
    assert "The settings stay as they were" in errors
    assert errors.count("Settings were read again") == 1


def test_losing_the_bus_ends_it(launcher: Launcher, bus: Bus) -> None:
    run = launcher.start("--bus-address", bus.address)
    run.wait_told("READY=1")
    run.wait_said("logind and systemd tell of teardowns")  # READY does not wait for the bus
    bus.kill()
    status, errors = run.ended()
    assert status == os.EX_TEMPFAIL
    assert "The connection to the system bus was lost." in errors


def test_without_a_bus_the_tree_tells(launcher: Launcher) -> None:
    run = launcher.start("--bus-address", "unix:path=/nonexistent/bus")
    run.wait_told("READY=1")
    run.wait_said("only the cgroup tree tells of teardowns")
    assert run.end()[0] == 0


def test_restore_alone_needs_no_settings(launcher: Launcher) -> None:
    launcher.config.write_text("nonsense: [\n")
    run = launcher.start("--restore")
    assert run.ended() == (0, "")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("rots: [/a]\n", "config.yaml:1: unknown key 'rots'"),
        ("sweep:\n  interval: soon\n", "config.yaml:2: sweep.interval"),
        ("roots: [a]\n", "config.yaml:1: roots"),
        ("a: [\n", "config.yaml:"),
    ],
)
def test_wrong_settings(launcher: Launcher, settings: str, words: str) -> None:
    launcher.config.write_text(settings)
    status, errors = launcher.start().ended()
    assert status == os.EX_CONFIG
    assert words in errors
    assert len(errors.strip().splitlines()) == 1


def test_missing_settings(launcher: Launcher) -> None:
    launcher.config.unlink()
    status, errors = launcher.start().ended()
    assert status == os.EX_CONFIG
    assert str(launcher.config) in errors
    assert len(errors.strip().splitlines()) == 1


def test_wrong_arguments(launcher: Launcher) -> None:
    status, errors = launcher.start("--restor").ended()
    assert status == 2
    assert "usage: logindguardd" in errors


def test_not_root(launcher: Launcher) -> None:
    # Rights are dropped after the import: nobody cannot read a checkout in a home of mode 0700.
    script = (
        "import os, sys; from logindguard.daemon import main;"
        " os.setgroups([]); os.setuid(65534); sys.exit(main([]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, timeout=DEADLINE_SEC
    )
    assert result.returncode == os.EX_NOPERM
    assert "Must be run as root" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_no_memory_controller(launcher: Launcher) -> None:
    """In a mount namespace without any cgroup hierarchy."""
    script = (
        "grep -E ' - cgroup2? ' /proc/self/mountinfo | cut -d' ' -f5 | tac | xargs umount -l && exec \"$@\""
    )
    command = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-m", "logindguard"]
    result = subprocess.run(
        [*command, "--config", str(launcher.config)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SEC,
    )
    assert result.returncode == os.EX_UNAVAILABLE
    assert "No cgroup hierarchy with the memory controller is mounted." in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_runtime_directory_that_others_can_write_to(launcher: Launcher) -> None:
    run_directory = launcher.directory / "run"
    run_directory.mkdir()
    run_directory.chmod(0o777)
    status, errors = launcher.start().ended()
    assert status == os.EX_CANTCREAT
    assert "writable by nobody else" in errors


@pytest.mark.timeout(180)
def test_an_idle_minute(launcher: Launcher, bus: Bus, tell: Tell) -> None:
    """Under 0.2 % of a CPU, resident set under 35 MiB."""
    run = launcher.start("--bus-address", bus.address)
    run.wait_told("READY=1")
    time.sleep(3)  # what starting costs is not idling
    before = _cpu_sec(run.process.pid)
    time.sleep(60)
    used_sec = _cpu_sec(run.process.pid) - before
    status = Path(f"/proc/{run.process.pid}/status").read_text()
    rss_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    tell(f"idle for 60 s: {used_sec * 1000:.0f} ms of CPU, {rss_kib / 1024:.1f} MiB resident")
    assert used_sec < 60 * 0.002
    assert rss_kib < 35 << 10
    assert run.end()[0] == 0


def _cpu_sec(pid: int) -> float:
    schedstat = [
        int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()
    ]
    return sum(schedstat) / 1e9


def test_version(launcher: Launcher) -> None:
    with contextlib.closing(launcher):
        result = subprocess.run(
            [sys.executable, "-m", "logindguard", "--version"],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SEC,
        )
    assert result.stdout.startswith("logindguard 0.")
