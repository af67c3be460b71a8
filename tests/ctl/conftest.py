"""The command in this process: its words in, what it printed and its exit status out."""

from __future__ import annotations

import asyncio
import io
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from logindguard.ctl.app import main
from logindguard.ctl.context import World
from logindguard.ctl.roots import Roots
from logindguard.record.history import History
from tests.bus.conftest import Daemon as Bus

from .fake_service import NOW_USEC, Running


class Sink(io.StringIO):
    """A stdout that says whether it is a terminal."""

    def __init__(self, *, tty: bool = False) -> None:
        super().__init__()
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    err: str


class Command:
    """`columns` makes stdout a terminal of that width."""

    def __init__(self, address: str, roots: Roots, directory: Path) -> None:
        self.address = address
        self.roots = roots
        self.directory = directory  # in front of PATH
        self.history: History | None = None  # the journal, for who may read it
        self.typing = False  # whether stdin is a terminal
        self.environment = {"PATH": f"{directory}:/usr/bin:/bin", "TERM": "xterm"}

    def __call__(self, *argv: str, columns: int | None = None, colour: bool = False) -> Ran:
        out, err = Sink(tty=columns is not None), Sink()
        environment = {**self.environment, "SYSTEMD_COLORS": str(int(colour)), "SYSTEMD_PAGER": ""}
        if columns is not None:
            environment["COLUMNS"] = str(columns)
        world = World(
            stdin=Sink(tty=self.typing),
            stdout=out,
            stderr=err,
            environment={**environment, "SYSTEMD_PAGERSECURE": "0"},
            roots=self.roots,
            bus_address=self.address,
            now_usec=NOW_USEC,
            history=self.history,
        )
        return Ran(main(argv, world), out.getvalue(), err.getvalue())


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture(autouse=True)
def no_loop_left() -> None:
    """pytest-asyncio leaves a loop behind for the next test, which asyncio.run() would forget unclosed."""
    policy = asyncio.get_event_loop_policy()
    try:
        policy.get_event_loop().close()
    except RuntimeError:
        return
    policy.set_event_loop(None)


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """The users of the canned records, whom this machine does not have."""
    known = {61001: "alice", 61002: "bob"}

    def name(uid: int) -> str:
        return known.get(uid, str(uid))

    for module in ("records", "doctor.logins", "owners"):
        monkeypatch.setattr(f"logindguard.ctl.{module}.user_name", name)


@pytest.fixture
def bus() -> Iterator[Bus]:
    directory = Path(tempfile.mkdtemp(prefix="lg-ctl-"))  # socket paths are short
    bus = Bus(directory)
    yield bus
    bus.kill()
    shutil.rmtree(directory)


@pytest.fixture
def running(bus: Bus) -> Iterator[Running]:
    running = Running(bus.address)
    yield running
    running.close()


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Roots:
    """A host without anything; tests add what they are about. Relative, so that every run prints the same."""
    monkeypatch.chdir(tmp_path)
    return Roots.under(Path("host"))


@pytest.fixture
def command(bus: Bus, roots: Roots, tmp_path: Path) -> Command:
    """On a bus where no service runs, unless `running` is asked for too."""
    directory = tmp_path / "bin"
    directory.mkdir()
    program(directory, "journalctl", "exit 0")
    return Command(bus.address, roots, directory)


def program(directory: Path, name: str, script: str) -> None:
    """A program of ours in front of the machine's."""
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


Json = dict[str, Any] | list[Any]
