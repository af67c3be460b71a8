"""A dbus-daemon of our own for each test, and the fakes of logind and systemd on it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from logindguard.signals.bus import SystemBus

from .fakes import FakeLogin1, FakeSystemd1, Peer, Tree

CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
  </policy>
</busconfig>
"""
STRICT = """    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_destination="org.freedesktop.DBus"/>
  </policy>
  <include>{policy}</include>
"""


class Daemon:
    """A running dbus-daemon with the rules of the system bus, where anybody may own and call any name.

    With `policy`, a file as services ship it, only what that allows. A `quiet` one keeps to itself what
    it refused: of a flood that is half a gigabyte.
    """

    def __init__(self, directory: Path, *, policy: Path | None = None, quiet: bool = False) -> None:
        self._socket = directory / "bus"
        self.address = f"unix:path={self._socket}"
        config = directory / "bus.conf"
        text = CONFIG.format(socket=self._socket)
        if policy is not None:
            text = text.replace("  </policy>\n", STRICT.format(policy=policy))
        config.write_text(text)
        self._process = subprocess.Popen(
            ["/usr/bin/dbus-daemon", f"--config-file={config}", "--nofork", "--print-address"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else None,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), "dbus-daemon did not start"

    def wait_name(self, name: str, timeout_sec: float = 60.0) -> None:
        """Returns when somebody owns the name."""
        deadline = time.monotonic() + timeout_sec
        owner = ["busctl", f"--address={self.address}", "status", name]
        while subprocess.run(owner, capture_output=True, check=False).returncode != 0:
            assert time.monotonic() < deadline, f"nobody owns {name}"
            time.sleep(0.05)

    def freeze(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """Socket paths may have 107 bytes; those of tmp_path can have more."""
    directory = Path(tempfile.mkdtemp(prefix="lg-bus-"))
    directory.chmod(0o711)  # ordinary users connect too
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def daemon(short_dir: Path) -> Iterator[Daemon]:
    daemon = Daemon(short_dir)
    yield daemon
    daemon.kill()


@pytest.fixture
async def bus(daemon: Daemon) -> AsyncIterator[SystemBus]:
    bus = await SystemBus.connect(daemon.address, timeout_sec=60)
    yield bus
    bus.close()


@pytest.fixture
async def login1(daemon: Daemon) -> AsyncIterator[FakeLogin1]:
    peer = await FakeLogin1.connect(daemon.address)
    yield peer
    peer.close()


@pytest.fixture
async def systemd1(daemon: Daemon) -> AsyncIterator[FakeSystemd1]:
    peer = await FakeSystemd1.connect(daemon.address)
    yield peer
    peer.close()


@pytest.fixture
async def stranger(daemon: Daemon) -> AsyncIterator[Peer]:
    """Any local user's connection."""
    peer = await Peer.connect(daemon.address)
    yield peer
    peer.close()


@pytest.fixture
def tree() -> Tree:
    return Tree()


@contextmanager
def not_reading(bus: SystemBus) -> Iterator[None]:
    """Meanwhile the daemon keeps what is for us; after it all that comes at once."""
    connection, loop = bus.connection, asyncio.get_running_loop()
    loop.remove_reader(connection._fd)
    yield
    loop.add_reader(connection._fd, connection._message_reader)


@dataclass
class Lag:
    """The longest that a ticker of 1 ms had to wait for the loop."""

    wall_sec: float = 0.0
    turns: int = 0
    cpu_sec: float = 0.0  # of this thread: what a busy machine does to the other does not count here


@pytest.fixture
async def worst_lag() -> AsyncIterator[Lag]:
    lag = Lag()

    async def tick() -> None:
        while True:
            wall_sec, cpu_sec = time.monotonic(), time.thread_time()
            await asyncio.sleep(0.001)
            lag.turns += 1
            lag.wall_sec = max(lag.wall_sec, time.monotonic() - wall_sec)
            lag.cpu_sec = max(lag.cpu_sec, time.thread_time() - cpu_sec)

    ticker = asyncio.create_task(tick())
    yield lag
    ticker.cancel()
    with suppress(asyncio.CancelledError):
        await ticker
