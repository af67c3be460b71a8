"""The daemon as a process on this machine's kernel, confined to a cgroup of ours, on a bus of ours."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from logindguard.kernel.cgroupfs import detect
from tests.bench.logins import statistics
from tests.bus.conftest import Daemon as Bus
from tests.conftest import Tell
from tests.native.launcher import CHECKOUT, DEADLINE_SEC, Launcher

pytestmark = pytest.mark.native

CLK_TCK = os.sysconf("SC_CLK_TCK")


def test_ready_status_and_a_clean_stop(launcher: Launcher, bus: Bus, tell: Tell) -> None:
    began = time.monotonic()
    run = launcher.start("--bus-address", bus.address)
    run.wait_told("READY=1")
    took_sec, cpu_sec = time.monotonic() - began, _cpu_sec(run.process.pid)
    tell(f"from the start to READY=1: {took_sec:.2f} s, {cpu_sec:.2f} s of CPU time")
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


def test_what_a_reload_covers_is_found_at_once(launcher: Launcher, bus: Bus, root: str) -> None:
    hierarchy = detect()
    assert hierarchy is not None
    cgroup = hierarchy.mount / root.strip("/") / "lgnew-1"
    cgroup.mkdir()
    try:
        run = launcher.start("--bus-address", bus.address)
        run.wait_told("READY=1")
        launcher.config.write_text(launcher.config.read_text() + "units:\n  include: [lgnew-*]\n")
        run.told.clear()
        run.process.send_signal(signal.SIGHUP)
        run.wait_told("READY=1")
        bus.wait_name("org.logindguard1")
        assert statistics(bus)["teardowns_total"] == 0
    finally:
        cgroup.rmdir()
    deadline = time.monotonic() + DEADLINE_SEC
    while statistics(bus)["teardowns_total"] == 0:
        assert time.monotonic() < deadline, "it was not covered"
        time.sleep(0.1)


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


def test_a_root_that_is_not_there(launcher: Launcher) -> None:
    launcher.config.write_text("roots: [/lgtest-none/such]\n")
    status, errors = launcher.start().ended()
    assert status == os.EX_CONFIG
    assert errors == "The settings name /lgtest-none/such in roots, and there is no such cgroup.\n"


def test_no_inotify_instance_left(launcher: Launcher) -> None:
    """A user namespace of its own has a limit of its own, which does not reach into this machine's."""
    limit = 'echo 0 >/proc/sys/user/max_inotify_instances && exec "$@"'
    run = subprocess.run(
        [
            *(
                "unshare",
                "--user",
                "--map-root-user",
                "sh",
                "-c",
                limit,
                "sh",
                sys.executable,
                "-m",
                "logindguard",
            ),
            *("--config", str(launcher.config), "--runtime-directory", str(launcher.directory / "run")),
        ],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SEC,
    )
    assert run.returncode == os.EX_OSERR
    assert "(see fs.inotify.max_user_instances)." in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


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
    """In a mount namespace without any cgroup hierarchy; then what the unit runs when it has ended."""
    script = (
        "grep -E ' - cgroup2? ' /proc/self/mountinfo | cut -d' ' -f5 | tac | xargs umount -l && exec \"$@\""
    )
    command = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-m", "logindguard"]

    def run(*arguments: str) -> tuple[int, str]:
        ended = subprocess.run(
            [*command, *arguments], cwd=CHECKOUT, capture_output=True, text=True, timeout=DEADLINE_SEC
        )
        return ended.returncode, ended.stderr

    sentence = "No cgroup hierarchy with the memory controller is mounted.\n"
    assert run("--config", str(launcher.config)) == (os.EX_UNAVAILABLE, sentence)
    assert run("--restore") == (os.EX_OK, "")


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
