"""The connection: deadlines, disconnects, and signals only from whom they claim to be."""

from __future__ import annotations

import asyncio
import socket
from copy import copy
from pathlib import Path
from typing import Any

import pytest
from dbus_next import Message

from logindguard.signals.bus import BusError, BusTimeout, SystemBus
from logindguard.signals.connection import bounded

from .conftest import Daemon, Lag, not_reading
from .fakes import FakeLogin1, Peer, until

MANAGER = "org.freedesktop.login1.Manager"
DAEMON = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")


class Heard(list[tuple[str, list[Any]]]):
    def __call__(self, path: str, body: list[Any]) -> None:
        self.append((path, body))


async def listen(bus: SystemBus, *, member: str = "SessionRemoved", signature: str = "so") -> Heard:
    heard = Heard()
    await bus.on_signal(
        sender=FakeLogin1.NAME,
        interface=MANAGER,
        member=member,
        path=FakeLogin1.PATH,
        signature=signature,
        handler=heard,
    )
    return heard


class Received(list[str]):
    """The members of all signals that reach our socket, wanted or not."""

    def __init__(self, bus: SystemBus) -> None:
        super().__init__()
        bus.connection.add_message_handler(self._note)

    def _note(self, message: Any) -> None:
        if message.interface == MANAGER:
            self.append(message.member)


async def test_a_call_and_its_reply(bus: SystemBus, login1: FakeLogin1) -> None:
    login1.add("1", 1000, "sshd")
    [sessions] = await bus.call(FakeLogin1.NAME, FakeLogin1.PATH, MANAGER, "ListSessions")
    assert sessions == [["1", 1000, "user1000", "", "/org/freedesktop/login1/session/_31"]]
    [session] = await bus.call(
        FakeLogin1.NAME,
        sessions[0][4],
        "org.freedesktop.DBus.Properties",
        "GetAll",
        "s",
        ["org.freedesktop.login1.Session"],
    )
    assert session["User"] == [1000, "/org/freedesktop/login1/user/_1000"]  # variants unwrapped


async def test_an_error_reply_keeps_its_name(bus: SystemBus) -> None:
    with pytest.raises(BusError) as caught:
        await bus.call(*DAEMON, "GetNameOwner", "s", ["org.example.Nobody"])
    assert caught.value.name == "org.freedesktop.DBus.Error.NameHasNoOwner"
    assert not isinstance(caught.value, BusTimeout)


async def test_a_call_that_is_never_answered_times_out(bus: SystemBus, login1: FakeLogin1) -> None:
    login1.silent.add("ListSessions")
    with pytest.raises(BusTimeout):
        await bus.call(FakeLogin1.NAME, FakeLogin1.PATH, MANAGER, "ListSessions", timeout_sec=0.1)
    login1.silent.clear()
    assert await bus.call(FakeLogin1.NAME, FakeLogin1.PATH, MANAGER, "ListSessions") == [[]]


async def test_a_frozen_daemon_times_out(bus: SystemBus, daemon: Daemon) -> None:
    daemon.freeze()
    with pytest.raises(BusTimeout):
        await bus.call(*DAEMON, "GetId", timeout_sec=0.1)
    with pytest.raises(BusTimeout):
        await SystemBus.connect(daemon.address, timeout_sec=0.2)


async def test_a_slow_daemon_is_waited_for(bus: SystemBus, daemon: Daemon) -> None:
    """dbus-next alone takes a full socket for a broken one."""
    daemon.freeze()
    big = Message.new_signal("/a", "org.example.I", "M", "s", ["x" * 100_000])
    sent = [bus.connection.send(copy(big)) for _ in range(20)]
    await asyncio.sleep(0.1)
    assert not sent[-1].done()
    daemon.thaw()
    await asyncio.wait_for(asyncio.gather(*sent), 60)
    assert len((await bus.call(*DAEMON, "GetId"))[0]) == 32


async def test_the_daemon_goes(bus: SystemBus, daemon: Daemon, login1: FakeLogin1) -> None:
    login1.silent.add("ListSessions")
    in_flight = asyncio.create_task(bus.call(FakeLogin1.NAME, FakeLogin1.PATH, MANAGER, "ListSessions"))
    await until(lambda: login1.calls)
    daemon.kill()
    await asyncio.wait_for(bus.wait_disconnected(), 60)
    assert not bus.connected
    with pytest.raises(BusError, match="Disconnected"):
        await asyncio.wait_for(in_flight, 60)
    with pytest.raises(BusError, match="Disconnected"):
        await bus.call(*DAEMON, "GetId")
    bus.close()


async def test_closing_ends_what_is_in_flight(bus: SystemBus, login1: FakeLogin1) -> None:
    login1.silent.add("ListSessions")
    in_flight = asyncio.create_task(bus.call(FakeLogin1.NAME, FakeLogin1.PATH, MANAGER, "ListSessions"))
    await until(lambda: login1.calls)
    bus.close()
    bus.close()
    with pytest.raises(BusError, match="Disconnected"):
        await asyncio.wait_for(in_flight, 60)
    await asyncio.wait_for(bus.wait_disconnected(), 60)


@pytest.mark.parametrize("address", ["unix:path=/nowhere/bus", "nonsense", "unix:tmpdir=/tmp", "tcp:port=x"])
async def test_no_bus_is_one_clear_error(address: str) -> None:
    with pytest.raises(BusError):
        await SystemBus.connect(address, timeout_sec=1)


async def test_a_daemon_that_takes_no_connections(short_dir: Path, worst_lag: Lag) -> None:
    """A full backlog; the loop goes on meanwhile."""
    path = str(short_dir / "s")
    clients = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(0)
        try:
            while True:
                client = socket.socket(socket.AF_UNIX)
                clients.append(client)
                client.setblocking(False)
                client.connect(path)
        except BlockingIOError:
            pass
        with pytest.raises(BusTimeout):
            await SystemBus.connect(f"unix:path={path}", timeout_sec=1)
    for client in clients:
        client.close()
    assert worst_lag.turns > 50  # the loop went on during the second that it took
    assert socket.getdefaulttimeout() is None


async def test_a_daemon_that_never_answers(short_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(short_dir / "s"))
        server.listen()
        with pytest.raises(BusTimeout):
            await SystemBus.connect(f"unix:path={short_dir}/s", timeout_sec=0.2)


async def test_a_daemon_that_hangs_up_while_authenticating(short_dir: Path) -> None:
    """dbus-next alone would spin here for ever, without giving the loop a turn."""
    path = short_dir / "s"

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.close()

    async with await asyncio.start_unix_server(hang_up, path):
        with pytest.raises(BusError, match="hung up"):
            await SystemBus.connect(f"unix:path={path}", timeout_sec=60)


async def test_a_daemon_that_refuses_us(short_dir: Path) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"REJECTED EXTERNAL\r\n")
        await reader.read()
        writer.close()

    path = short_dir / "s"
    async with await asyncio.start_unix_server(refuse, path):
        with pytest.raises(BusError, match="AuthFailed"):
            await SystemBus.connect(f"unix:path={path}", timeout_sec=60)


async def test_a_signal_of_the_owner_is_heard(bus: SystemBus, login1: FakeLogin1) -> None:
    heard = await listen(bus)
    login1.session_removed("1")
    await until(lambda: heard)
    assert heard == [("/org/freedesktop/login1", ["1", "/org/freedesktop/login1/session/_31"])]


async def test_forged_signals_are_not_heard(bus: SystemBus, login1: FakeLogin1, stranger: Peer) -> None:
    heard, received = await listen(bus), Received(bus)
    body = ("66", "/org/freedesktop/login1/session/_366")
    stranger.emit(MANAGER, "SessionRemoved", FakeLogin1.PATH, "so", *body)
    stranger.emit(MANAGER, "SessionRemoved", FakeLogin1.PATH, "so", *body, to=bus.unique_name)
    await stranger.flush()
    login1.session_removed("1")
    await until(lambda: heard)
    assert received == ["SessionRemoved"] * 2, "the forged one did reach our socket"
    assert [signal[1][0] for signal in heard] == ["1"]


async def test_a_forger_may_not_claim_to_be_the_daemon(
    bus: SystemBus, login1: FakeLogin1, stranger: Peer
) -> None:
    """NameOwnerChanged by a stranger would hand it the name."""
    heard = await listen(bus)
    stranger.emit(
        *(DAEMON[2], "NameOwnerChanged", DAEMON[1], "sss"),
        *(FakeLogin1.NAME, login1.unique_name, stranger.unique_name),
        to=bus.unique_name,
    )
    stranger.emit(MANAGER, "SessionRemoved", FakeLogin1.PATH, "so", "66", "/x", to=bus.unique_name)
    await stranger.flush()
    login1.session_removed("1")
    await until(lambda: heard)
    assert [signal[1][0] for signal in heard] == ["1"]


async def test_nobody_speaks_for_a_name_without_owner(bus: SystemBus, stranger: Peer) -> None:
    heard, received = await listen(bus), Received(bus)
    stranger.emit(MANAGER, "SessionRemoved", FakeLogin1.PATH, "so", "66", "/x", to=bus.unique_name)
    await until(lambda: received)
    assert heard == []


async def test_a_new_owner_is_heard_and_the_old_one_no_more(
    bus: SystemBus, login1: FakeLogin1, stranger: Peer
) -> None:
    heard, received = await listen(bus), Received(bus)
    await login1.disown(FakeLogin1.NAME)
    await stranger.own(FakeLogin1.NAME)  # the restarted logind
    login1.emit(MANAGER, "SessionRemoved", FakeLogin1.PATH, "so", "old", "/x", to=bus.unique_name)
    await login1.flush()
    stranger.emit(MANAGER, "SessionRemoved", FakeLogin1.PATH, "so", "new", "/x")
    await until(lambda: len(received) == 2)
    assert [signal[1][0] for signal in heard] == ["new"]


async def test_owner_changes_are_told(bus: SystemBus, login1: FakeLogin1, stranger: Peer) -> None:
    owners: list[str] = []
    assert await bus.track(FakeLogin1.NAME, owners.append) == login1.unique_name
    await login1.disown(FakeLogin1.NAME)
    await stranger.own(FakeLogin1.NAME)
    await until(lambda: len(owners) == 2)
    assert owners == ["", stranger.unique_name]


async def test_other_paths_and_signatures_are_not_heard(bus: SystemBus, login1: FakeLogin1) -> None:
    heard = await listen(bus)
    login1.emit(MANAGER, "SessionRemoved", "/elsewhere", "so", "1", "/x", to=bus.unique_name)
    login1.emit(MANAGER, "SessionRemoved", FakeLogin1.PATH, "s", "2", to=bus.unique_name)
    login1.session_removed("3")
    await until(lambda: heard)
    assert [signal[1][0] for signal in heard] == ["3"]


async def test_a_path_namespace(bus: SystemBus, login1: FakeLogin1) -> None:
    heard = Heard()
    await bus.on_signal(
        sender=FakeLogin1.NAME,
        interface="org.example.I",
        member="M",
        path_namespace="/a/b",
        signature="s",
        handler=heard,
    )
    for path in ("/a/bc", "/a", "/a/b", "/a/b/c"):
        login1.emit("org.example.I", "M", path, "s", path)
    await until(lambda: len(heard) == 2)
    assert [path for path, _ in heard] == ["/a/b", "/a/b/c"]


async def test_a_flood_leaves_the_loop_alive(bus: SystemBus, login1: FakeLogin1, worst_lag: Lag) -> None:
    heard = await listen(bus)
    with not_reading(bus):
        for number in range(10_000):
            login1.session_removed(str(number))
            if number % 100 == 0:
                await login1.flush()  # dbus-next alone hangs up when its socket is full
        await login1.flush()
    worst_lag.cpu_sec = 0.0
    await until(lambda: len(heard) == 10_000)
    assert [int(body[0]) for _, body in heard] == list(range(10_000))
    assert worst_lag.cpu_sec < 0.2


@pytest.mark.parametrize("turns", range(5))
async def test_a_cancellation_that_comes_with_the_answer_is_not_lost(turns: int) -> None:
    """asyncio.wait_for of Python 3.11 returns the answer then, and the stop of the program hangs."""
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def call() -> int:
        return await answer

    task = asyncio.create_task(bounded(call(), "an answer", 5))
    for _ in range(3):
        await asyncio.sleep(0)
    answer.set_result(1)
    for _ in range(turns):
        await asyncio.sleep(0)
    if not task.done():
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
