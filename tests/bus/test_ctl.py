"""The verbs against the real interface: what the service answers with, and who may."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from logindguard.config_file import ConfigError
from logindguard.ctl.client import STATUS
from logindguard.ctl.exits import Exit
from logindguard.dbus.names import Error
from logindguard.signals.bus import SystemBus

from .conftest import Daemon
from .rig import ALICE, BOB, Rig, record, serving

CHECKOUT = Path(__file__).parents[2]
DEADLINE_SEC = 60
# Rights are dropped after the imports: nobody cannot read a checkout in a home of mode 0700.
_AS_USER = (
    "import os, sys; import logindguard.ctl.app, logindguard.signals.bus;"
    " os.setgroups([]); os.setresgid(1000, 1000, 1000); os.setresuid(1000, 1000, 1000);"
    " sys.exit(logindguard.ctl.app.main(sys.argv[1:]))"
)


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    err: str


class Command:
    def __init__(self, address: str) -> None:
        self.address = address

    async def __call__(self, *argv: str, user: bool = False) -> Ran:
        how = ["-c", _AS_USER] if user else ["-m", "logindguard.ctl"]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *how, *argv),
            cwd=CHECKOUT,
            env={
                "PATH": "/usr/bin:/bin",
                "PYTHONDONTWRITEBYTECODE": "1",
                "DBUS_SYSTEM_BUS_ADDRESS": self.address,
            },
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), DEADLINE_SEC)
        assert b"Traceback" not in err
        return Ran(process.returncode or 0, out.decode(), err.decode())

    async def json(self, *argv: str, user: bool = False) -> Any:
        ran = await self(*argv, "--json=short", user=user)
        assert ran.status == 0, ran
        return json.loads(ran.out)


@pytest.fixture
async def rig(bus: SystemBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    async with serving(bus, tmp_path, monkeypatch) as rig:
        yield rig


@pytest.fixture
def command(daemon: Daemon) -> Command:
    return Command(daemon.address)


def test_every_error_has_a_status() -> None:
    assert set(Error) <= STATUS.keys()


async def test_status(rig: Rig, command: Command) -> None:
    found = await command.json("status", "-n0")
    assert found["source"] == "service"
    assert found["mode"] == rig.backend.mode
    assert found["config_files"] == ["/etc/logindguard/config.yaml"]
    ran = await command("status", "-n0")
    assert ran.status == 0
    assert ran.out.startswith("● logindguard ")
    assert f"Mode: {rig.backend.mode} (" in ran.out
    assert "Last sweep: " in ran.out


async def test_list_as_root_and_as_a_user(rig: Rig, command: Command) -> None:
    rig.backend.hold(ALICE, 3, 8192)
    rig.backend.hold(BOB, 4, 4096)
    rows = await command.json("list")
    assert {row["path"]: row["dying"] for row in rows} == {ALICE: 3, BOB: 4}
    assert rows[0]["uid"] == 1001
    merged = await command.json("list", user=True)
    assert {row["path"] for row in merged} == {ALICE, "/user.slice"}


async def test_history_and_show(rig: Rig, command: Command) -> None:
    assert [row["id"][-1] for row in await command.json("history")] == ["1", "2", "3", "4"]
    assert [row["id"][-1] for row in await command.json("history", "-n1")] == ["4"]
    assert await command.json("history", "--until=@0") == []
    assert len(await command.json("history", "--until=@999999999999", "-n999999999999999")) == 4
    assert [row["id"][-1] for row in await command.json("history", "--user=1001", "-r")] == ["3", "2"]
    own = await command("history", user=True)
    assert own.status == 0
    assert "2 reclaims listed." in own.out
    assert own.err == "Other users' reclaims are shown only to whom polkit allows it.\n"
    shown = await command("show", "session-2.scope", "-p", "freed_bytes", "--value")
    assert (shown.status, shown.out) == (0, "4096\n")
    missing = await command("show", "f" * 32)
    assert (missing.status, missing.err) == (Exit.NOT_FOUND, "The journal has no reclaim of that id.\n")
    rig.history.broken = "The journal cannot be read"
    assert (await command("history")).status == Exit.UNAVAILABLE


async def test_more_records_than_one_answer_holds(rig: Rig, command: Command) -> None:
    rig.history.entries = [record(number, 1000) for number in range(1, 2502)]
    assert len(await command.json("history")) == 2501
    assert len(await command.json("history", "-n", "1700")) == 1700
    assert len(await command.json("history", "--unit=session-7.scope")) == 1


async def test_a_sweep(rig: Rig, command: Command) -> None:
    rig.backend.hold(ALICE, 3, 8192)
    ran = await command("sweep", "--wait")
    assert ran.status == 0, ran
    assert ran.out.startswith("Job 1 is done: released ")
    assert ("reclaim", ALICE) in rig.backend.calls
    started = await command.json("sweep", "user.slice")
    assert started == {"job": 2}


async def test_a_plan(rig: Rig, command: Command) -> None:
    rig.backend.hold(ALICE, 3, 8192)
    rows = await command.json("sweep", "--dry-run")
    assert all({"path", "file", "value", "purpose"} == row.keys() for row in rows)
    assert ("reclaim", ALICE) not in rig.backend.calls


async def test_reclaims_by_name(rig: Rig, command: Command) -> None:
    ran = await command("reclaim", "1", "--wait")
    assert ran.status == 0, ran
    ran = await command("reclaim", "session-99.scope")
    assert ran.status == Exit.NOT_FOUND
    assert ran.err == "No cgroup of session-99.scope is there, and none ended lately.\n"
    ran = await command("sweep", "a/../b")
    assert ran.status == Exit.USAGE


async def test_pause_and_resume(rig: Rig, command: Command) -> None:
    assert (await command("pause", "--for=1h")).out == "Paused for 1h.\n"
    assert rig.pause.reason
    assert "Service: paused until " in (await command("status", "-n0")).out
    ran = await command("sweep")
    assert ran.status == Exit.TEMPORARY
    assert ran.err.startswith("Nothing is reclaimed: ")
    assert (await command("resume")).status == 0
    assert not rig.pause.reason
    assert (await command("pause", "--for=11y")).status == Exit.USAGE
    for longer in ("9999d", "9999999999d"):
        assert (await command("pause", f"--for={longer}")).status == Exit.USAGE


async def test_reload_and_restore(rig: Rig, command: Command) -> None:
    assert (await command("reload")).status == 0
    assert rig.reloads
    rig.reload_error = ConfigError("sweep.interval is wrong.", file=Path("/etc/x.yaml"), line=3)
    ran = await command("reload")
    assert (ran.status, ran.err) == (Exit.SETTINGS, "/etc/x.yaml:3: sweep.interval is wrong.\n")
    ran = await command("restore")
    assert (ran.status, ran.out) == (0, "Nothing was left to put back.\n")


@pytest.mark.parametrize("verb", ["sweep", "pause", "resume", "reload", "restore", "reclaim"])
async def test_a_user_may_not(rig: Rig, command: Command, verb: str) -> None:
    argument = ["1"] if verb == "reclaim" else []
    ran = await command(verb, *argument, user=True)
    assert (ran.status, ran.out) == (Exit.DENIED, "")
    assert ran.err == "Not permitted; try as root, or ask the administrator for a polkit rule.\n"


async def test_a_user_may_look(rig: Rig, command: Command) -> None:
    for argv in (["status"], ["list"], ["check"], ["top"], ["doctor"], ["history"]):
        ran = await command(*argv, user=True)
        assert ran.status in (Exit.OK, Exit.NEGATIVE), ran
        assert ran.out


async def test_monitor(rig: Rig, command: Command) -> None:
    watching = asyncio.create_task(command("monitor", "-n1", "--json=short", user=True))
    while not watching.done():
        rig.control.book(record(7, 1000))
        await asyncio.sleep(0.2)
    event = json.loads((await watching).out)
    assert event["signal"] == "Reclaimed"
    assert {"id", "way", "outcome", "unit_class", "slice", "freed_bytes"} <= event.keys()
