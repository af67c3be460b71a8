"""The README's client works as printed."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from logindguard.dbus.names import BUS_NAME, MANAGER, Error
from logindguard.dbus.polkit import Action
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
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, out.decode()
    return out.decode()


def test_every_name_in_it_is_there() -> None:
    text = README.read_text()
    interface = (README.parent / "dbus" / f"{MANAGER}.xml").read_text()
    members = re.findall(r'<(?:method|property|signal) name="(\w+)"', interface)
    known = {
        BUS_NAME,
        MANAGER,
        f"{BUS_NAME}.Hook",
        *Action,
        *Error,
        *(f"{MANAGER}.{member}" for member in members),
    }
    files = {f"{MANAGER}.xml", *(file.name for file in (README.parent / "polkit").iterdir())}
    assert set(re.findall(r"org\.logindguard1[\w.-]*\w", text)) <= known | files
    [section] = re.findall(r"## From other programs\n(.*?)\n## ", text, re.DOTALL)
    for action in Action:
        assert action in section or f"`.{action.rpartition('.')[2]}`" in section
    assert {"JobFinished", "Pause", "GetStatistics"} <= set(members)
    for member in re.findall(r"guard\.(?:get|on|call)_(\w+)", section):
        assert "".join(word.title() for word in member.split("_")) in members


async def test_the_readmes_client(daemon: Daemon, rig: Rig) -> None:
    rig.backend.hold(ALICE, 3, 10 * MIB)
    await rig.control.residues()
    assert await client(daemon) == f"mode precise dying 3\n{10 * MIB} bytes from /user.slice\nsweep done\n"


async def test_the_readmes_client_where_nothing_is_reclaimed(daemon: Daemon, rig: Rig) -> None:
    rig.backend.mode, rig.backend.reason = Mode.OBSERVE, "a test"
    out = await client(daemon)
    assert out.startswith("mode observe dying 0\norg.logindguard1.Error.NotSupported ")
