"""Root's own road on a real dbus-daemon with the shipped rules: closed for all others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dbus_next import Message

from logindguard.dbus.callers import Caller
from logindguard.dbus.names import HOOK, MANAGER, PATH
from logindguard.dbus.root_api import RootApi
from logindguard.signals.bus import SystemBus

from .conftest import Daemon
from .fakes import Peer, until
from .user import Failed, User

POLICY = Path(__file__).parents[2] / "dbus" / "org.logindguard1.conf"
NOBODY = 65534
PING = "org.freedesktop.DBus.Peer"


class Road:
    """The guarded connection, and whatever of others came in on it."""

    def __init__(self, bus: SystemBus) -> None:
        self.bus = bus
        self.callers: list[Caller] = []
        self.came: list[Any] = []
        bus.connection.add_message_handler(self._note)
        service: Any = SimpleNamespace(dying=7, restore=self._restore)
        self.api = RootApi(bus, service, self._reclaim_ending)

    def _note(self, message: Any) -> None:
        if message.sender != "org.freedesktop.DBus":
            self.came.append(message)

    async def _restore(self) -> int:
        return 3

    async def _reclaim_ending(self, caller: Caller) -> str:
        self.callers.append(caller)
        return "released"


@pytest.fixture
async def daemon(short_dir: Path) -> AsyncIterator[Daemon]:
    daemon = Daemon(short_dir, policy=POLICY)
    yield daemon
    daemon.kill()


@pytest.fixture
async def road(daemon: Daemon) -> AsyncIterator[Road]:
    bus = await SystemBus.connect(daemon.address, timeout_sec=60)
    road = Road(bus)
    await road.api.start()
    yield road
    road.api.stop()
    await until(lambda: not road.api._server._tasks and not road.api._server._callers._forgetting)
    bus.close()


@pytest.fixture
async def user(daemon: Daemon) -> AsyncIterator[User]:
    user = await User.start(daemon.address, NOBODY)
    yield user
    await user.stop()


async def test_root_may_call_it(road: Road, stranger: Peer) -> None:
    reply = await stranger._connection.call(
        Message(destination=HOOK, path=PATH, interface=HOOK, member="ReclaimEnding")
    )
    assert reply.body == ["released"]
    assert [caller.uid for caller in road.callers] == [0]


async def test_root_reaches_the_manager_too(road: Road, stranger: Peer) -> None:
    connection = stranger._connection
    reply = await connection.call(Message(destination=HOOK, path=PATH, interface=MANAGER, member="Restore"))
    assert reply.body == [3]
    get = Message(
        destination=HOOK,
        path=PATH,
        interface="org.freedesktop.DBus.Properties",
        member="Get",
        signature="ss",
        body=[MANAGER, "DyingCount"],
    )
    assert (await connection.call(get)).body[0].value == 7


async def test_what_root_broadcasts_is_heard(road: Road, stranger: Peer) -> None:
    """logind and systemd are listened to on this connection."""
    await road.bus.add_match("type='signal',interface='org.example.I'")
    stranger.emit("org.example.I", "Told", "/", "")
    await until(lambda: [message.member for message in road.came] == ["Told"])


@pytest.mark.parametrize("by", ["name", "unique name"])
async def test_no_call_of_a_user_gets_there(road: Road, user: User, by: str) -> None:
    to = HOOK if by == "name" else road.bus.unique_name
    for member, interface in (("ReclaimEnding", HOOK), ("Ping", PING), ("ReclaimEnding", "org.logindguard1")):
        with pytest.raises(Failed) as failed:
            await user.call(member, to=to, interface=interface)
        assert failed.value.name == "AccessDenied"
        assert "Rejected send message" in failed.value.sentence  # by the bus, not by us
    assert road.came == []


async def test_nothing_else_of_a_user_gets_there(road: Road, user: User, stranger: Peer) -> None:
    """Neither signals, for one or for all, nor answers that were not asked for."""
    await road.bus.add_match("type='signal',interface='org.example.I'")
    for to in (HOOK, road.bus.unique_name):
        await user.send("SIGNAL", to)
        await user.send("METHOD_RETURN", to, reply_serial=1)
        await user.send("ERROR", to, reply_serial=1, error_name="org.example.E")
        await user.send("METHOD_CALL", to)
    await user.send("SIGNAL", None)
    await user.call("GetId", to="org.freedesktop.DBus", interface="org.freedesktop.DBus", path="/")
    # All of that has been routed: what comes after it is the first to come.
    stranger.emit("org.example.I", "Last", "/", "")
    await until(lambda: road.came)
    assert [message.member for message in road.came] == ["Last"]


async def test_no_user_may_have_the_name(daemon: Daemon, user: User) -> None:
    with pytest.raises(Failed) as failed:
        await user.call(
            *("RequestName", "su", HOOK, 0),
            to="org.freedesktop.DBus",
            interface="org.freedesktop.DBus",
            path="/",
        )
    assert failed.value.name == "AccessDenied"


async def test_a_call_before_the_name_is_there_is_refused_by_the_bus(daemon: Daemon, user: User) -> None:
    bus = await SystemBus.connect(daemon.address, timeout_sec=60)
    with pytest.raises(Failed) as failed:
        await user.call("ReclaimEnding", to=bus.unique_name, interface=HOOK)
    assert failed.value.name == "AccessDenied"
    bus.close()
    await asyncio.sleep(0)
