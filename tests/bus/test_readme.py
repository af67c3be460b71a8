"""The README's client works as printed."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from logindguard.model import Mode
from logindguard.signals.bus import SystemBus
from tests.unit.fake_backend import MIB

from .conftest import Daemon
from .rig import ALICE, Rig, serving

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
async def rig(bus: SystemBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    async with serving(bus, tmp_path, monkeypatch) as rig:
        yield rig


async def client(daemon: Daemon) -> str:
    [program] = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    process = await asyncio.create_subprocess_exec(
        *("/usr/bin/python3", "-W", "ignore", "-c", program),
        env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": daemon.address},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, out.decode()
    return out.decode()


async def test_the_readmes_client(daemon: Daemon, rig: Rig) -> None:
    rig.backend.hold(ALICE, 3, 10 * MIB)
    await rig.control.residues()
    assert await client(daemon) == f"mode precise dying 3\n{10 * MIB} bytes from /user.slice\nsweep done\n"


async def test_the_readmes_client_where_nothing_is_reclaimed(daemon: Daemon, rig: Rig) -> None:
    rig.backend.mode, rig.backend.reason = Mode.OBSERVE, "a test"
    out = await client(daemon)
    assert out.startswith("mode observe dying 0\norg.logindguard1.Error.NotSupported ")
