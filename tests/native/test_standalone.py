"""Without a service manager, a bus, logind or systemd: what still works, and what is said of it.

Every record here is of a cgroup that the tree alone told of.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from logindguard.kernel.cgroupfs import detect
from logindguard.record.journal import Kind
from tests.bus.conftest import Daemon as Bus
from tests.bus.fakes import FakeLogin1, FakeSystemd1
from tests.native.launcher import CHECKOUT, Launcher, Run

pytestmark = pytest.mark.native

ALL = "login1 systemd1 cgroup-watch"
TREE = "cgroup-watch"


@pytest.fixture
def directory(root: str) -> Path:
    hierarchy = detect()
    assert hierarchy is not None
    return hierarchy.mount / root.strip("/")


@pytest.fixture
async def login1(bus: Bus) -> AsyncIterator[FakeLogin1]:
    peer = await FakeLogin1.connect(bus.address)
    yield peer
    peer.close()


@pytest.fixture
async def systemd1(bus: Bus) -> AsyncIterator[FakeSystemd1]:
    peer = await FakeSystemd1.connect(bus.address)
    yield peer
    peer.close()


def a_session_ends(directory: Path, number: int) -> None:
    scope = directory / f"session-{number}.scope"
    scope.mkdir()
    scope.rmdir()


def told_by(run: Run, sources: str, why: str) -> str:
    """Waits for the line that says who tells of teardowns; the sentence."""
    entry = run.wait_entry(MESSAGE_ID=Kind.SOURCES, LOGINDGUARD_SOURCES=sources, LOGINDGUARD_REASON=why)
    return str(entry["MESSAGE"])


def record_says(run: Run, directory: Path, number: int) -> None:
    """A session ends, and its record says who told of it and in which mode the program works."""
    a_session_ends(directory, number)
    record = run.wait_entry(UNIT=f"session-{number}.scope")
    assert record["LOGINDGUARD_SOURCES"] == TREE
    assert record["SESSION_ID"] == str(number)
    mode = run.wait_entry(MESSAGE_ID=Kind.MODE)
    assert record["LOGINDGUARD_MODE"] == mode["LOGINDGUARD_MODE"]
    run.wait_said(record["MESSAGE"])


def test_no_bus(launcher: Launcher, directory: Path) -> None:
    run = launcher.start("--json", "--bus-address", "unix:path=/nonexistent/bus")
    why = "no system bus (unix:path=/nonexistent/bus: No such file or directory)"
    sentence = told_by(run, TREE, why)
    assert sentence == f"Teardowns are told by the cgroup tree alone; {why}"
    run.wait_said(sentence)
    record_says(run, directory, 1)
    status, errors = run.end()
    assert status == 0
    assert "Traceback" not in errors


def test_a_bus_without_logind_and_systemd(launcher: Launcher, bus: Bus, directory: Path) -> None:
    run = launcher.start("--json", "--bus-address", bus.address)
    sentence = told_by(run, TREE, "not on the bus: logind and systemd")
    run.wait_said(sentence)
    record_says(run, directory, 1)
    assert run.end()[0] == 0


async def test_they_come_later(launcher: Launcher, bus: Bus, directory: Path) -> None:
    run = launcher.start("--json", "--bus-address", bus.address)
    await asyncio.to_thread(told_by, run, TREE, "not on the bus: logind and systemd")
    systemd1 = await FakeSystemd1.connect(bus.address)
    await asyncio.to_thread(told_by, run, "systemd1 cgroup-watch", "not on the bus: logind")
    login1 = await FakeLogin1.connect(bus.address)
    sentence = await asyncio.to_thread(told_by, run, ALL, "")
    assert sentence == "Teardowns are told by logind, systemd and the cgroup tree"
    systemd1.close()
    login1.close()
    assert (await asyncio.to_thread(run.end))[0] == 0


def test_a_bus_that_comes_later(launcher: Launcher, short_dir: Path, directory: Path) -> None:
    run = launcher.start("--json", "--bus-address", f"unix:path={short_dir}/bus")
    told_by(run, TREE, f"no system bus (unix:path={short_dir}/bus: No such file or directory)")
    record_says(run, directory, 1)
    bus = Bus(short_dir)
    try:
        told_by(run, TREE, "not on the bus: logind and systemd")
        record_says(run, directory, 2)
        assert run.end()[0] == 0
    finally:
        bus.kill()


async def test_a_bus_that_is_lost(
    launcher: Launcher, bus: Bus, login1: FakeLogin1, systemd1: FakeSystemd1, directory: Path
) -> None:
    run = launcher.start("--json", "--bus-address", bus.address)
    await asyncio.to_thread(told_by, run, ALL, "")
    bus.kill()
    await asyncio.to_thread(told_by, run, TREE, "the connection to the system bus was lost")
    await asyncio.to_thread(record_says, run, directory, 1)
    assert (await asyncio.to_thread(run.end))[0] == 0


def test_any_unit_of_a_root_may_be_cared_for(launcher: Launcher, root: str, directory: Path) -> None:
    """As on a host of containers, whose cgroups have the names of no systemd unit."""
    launcher.config.write_text(f'roots: [{root}]\nunits: {{include: ["*"]}}\n')
    run = launcher.start("--json", "--bus-address", "unix:path=/nonexistent/bus")
    run.wait_entry(MESSAGE_ID=Kind.MODE)
    name = "4f1c" * 16
    (directory / name).mkdir()
    (directory / name).rmdir()
    assert run.wait_entry(UNIT=name)["LOGINDGUARD_SOURCES"] == TREE
    assert run.end()[0] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_plain_process(launcher: Launcher, number: int) -> None:
    """No NOTIFY_SOCKET, no journal: lines to read on stderr, without prefixes, and a clean end."""
    run = Run(
        subprocess.Popen(
            [
                *(sys.executable, "-m", "logindguard", "--config", str(launcher.config)),
                *("--runtime-directory", str(launcher.directory / "run")),
                *("--bus-address", "unix:path=/nonexistent/bus"),
            ],
            cwd=CHECKOUT,
            env={"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ),
        None,
    )
    launcher.runs.append(run)
    run.wait_said("Mode ")
    run.wait_said("Teardowns are told by the cgroup tree alone; no system bus")
    status, errors = run.end(number)
    assert status == 0
    assert all(line[0].isupper() for line in errors.splitlines())
    assert run.entered == []


def test_help(launcher: Launcher) -> None:
    run = launcher.start("--help")
    assert run.ended() == (os.EX_OK, "")
    text = "".join(run.entered)
    assert "exit status" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_a_part_of_the_tree_is_said_to_be_one(launcher: Launcher) -> None:
    """As in a container: where the hierarchy is mounted, there is one of its cgroups."""
    hierarchy = detect()
    assert hierarchy is not None
    made = hierarchy.mount / f"lgtest-part-{os.getpid()}"
    made.mkdir()
    script = f'mount --bind {made} {hierarchy.mount} && exec "$@"'
    (launcher.directory / "config.yaml").write_text("")
    given = ["--config", str(launcher.config), "--runtime-directory", str(launcher.directory / "run")]
    process = subprocess.Popen(
        [
            *("unshare", "--mount", "sh", "-c", script, "sh"),
            *(sys.executable, "-m", "logindguard", *given, "--bus-address", "unix:path=/nonexistent/bus"),
        ],
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        run = Run(process, None)
        launcher.runs.append(run)
        run.wait_said("Only a part of the machine's cgroups is seen here, as in a container")
        assert run.end()[0] == 0
    finally:
        made.rmdir()
