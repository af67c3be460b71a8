"""What strangers send: too much, or what dbus-next does not understand."""

from __future__ import annotations

import asyncio
import os
import random
import struct
from pathlib import Path

import pytest
from dbus_next import Message, MessageType
from dbus_next.aio import MessageBus
from dbus_next.signature import SignatureTree

from logindguard.signals.bus import SystemBus
from logindguard.signals.reader import MAX_SIGNATURES, MAX_UNASKED_BYTES

from .conftest import Daemon, Lag
from .fakes import FakeLogin1, Peer, until

DAEMON = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")


def call(bus: SystemBus, signature: str = "", *body: object, member: str = "M") -> Message:
    return Message(
        destination=bus.unique_name,
        path="/a",
        interface="org.example.I",
        member=member,
        signature=signature,
        body=list(body),
    )


async def answers(bus: SystemBus) -> bool:
    return len((await bus.call(*DAEMON, "GetId"))[0]) == 32


async def test_a_message_that_is_too_large_is_left_out(
    daemon: Daemon, bus: SystemBus, worst_lag: Lag
) -> None:
    stranger = await SystemBus.connect(daemon.address, timeout_sec=20)
    heard: list[str] = []
    bus.connection.add_message_handler(lambda message: heard.append(message.member))
    await answers(bus)
    worst_lag.cpu_sec = 0.0
    before_kib = _rss_kib()
    for number in range(4):
        stranger.send(call(bus, "ai", [number] * 500_000, member="Large"))
        stranger.send(call(bus, "ay", bytes(20_000_000), member="Large"))
        stranger.send(call(bus, "s", "x" * (MAX_UNASKED_BYTES - 200), member=f"Small{number}"))
        await answers(stranger)
    await until(lambda: "Small3" in heard)
    assert "Large" not in heard
    assert await answers(bus)
    assert worst_lag.cpu_sec < 1.0  # most of it is this test's own marshalling
    assert _rss_kib() - before_kib < 150 << 10
    stranger.close()


def _rss_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


async def test_a_large_reply_that_was_asked_for_is_read(bus: SystemBus, login1: FakeLogin1) -> None:
    for number in range(2_000):
        login1.add(str(number), 1000, "sshd")
    [sessions] = await bus.call(
        FakeLogin1.NAME, FakeLogin1.PATH, f"{FakeLogin1.NAME}.Manager", "ListSessions"
    )
    assert len(sessions) == 2_000


async def test_signatures_are_not_kept_for_ever(bus: SystemBus, stranger: Peer) -> None:
    for number in range(3 * MAX_SIGNATURES):
        kinds = [*"ybnqiuxtds"]
        signature = "".join(kinds[int(digit)] for digit in f"{number:06d}")
        values = [{"s": "", "d": 0.0, "b": False}.get(kind, 0) for kind in signature]
        stranger._connection.send(call(bus, signature, *values))
        if number % 50 == 0:
            SignatureTree._cache.pop(signature, None)
            await stranger.flush()
            await answers(bus)
    assert len(SignatureTree._cache) <= MAX_SIGNATURES + 100


async def test_whatever_the_bus_lets_pass(daemon: Daemon, bus: SystemBus) -> None:
    """Valid messages with bytes changed at random: the bus hangs up on those that are not valid any more."""
    chance = random.Random(1)  # the same each time
    sample = call(bus, "a{sv}ay", {}, b"\x00" * 40)
    stranger = await _connected(daemon)
    for number in range(3_000):
        sample.serial = number + 1
        data = bytearray(sample._marshall())
        for _ in range(chance.randrange(3)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            await asyncio.get_running_loop().sock_sendall(stranger._sock, bytes(data))
        except OSError:
            stranger = await _reconnected(daemon, stranger)
        if number % 100 == 0:
            assert await answers(bus)
    stranger._sock.close()
    assert await answers(bus)


async def _connected(daemon: Daemon) -> MessageBus:
    bus = await MessageBus(bus_address=daemon.address).connect()
    asyncio.get_running_loop().remove_reader(bus._fd)
    return bus


async def _reconnected(daemon: Daemon, lost: MessageBus) -> MessageBus:
    lost._sock.close()
    return await _connected(daemon)


@pytest.mark.parametrize("kind", [5, 200])
async def test_a_type_of_message_that_nobody_knows(daemon: Daemon, bus: SystemBus, kind: int) -> None:
    sample = call(bus)
    sample.serial = 7
    data = bytearray(sample._marshall())
    data[1] = kind
    stranger = await _connected(daemon)
    await asyncio.get_running_loop().sock_sendall(stranger._sock, bytes(data))
    assert await answers(bus)
    stranger._sock.close()


async def test_the_end_of_the_connection_in_the_middle_of_a_message(bus: SystemBus) -> None:
    """Straight into the reader: a daemon would have to die at the right byte."""
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb", buffering=0) as stream:
        os.set_blocking(ours, False)
        reader = bus.connection._create_unmarshaller()
        reader.stream = stream
        os.write(theirs, struct.pack("<BBBBIII", ord("l"), MessageType.SIGNAL.value, 0, 1, 1 << 20, 1, 8))
        assert reader.unmarshall() is None
        os.write(theirs, b"\x00" * 1000)
        assert reader.unmarshall() is None
        os.close(theirs)
        with pytest.raises(EOFError):
            reader.unmarshall()
