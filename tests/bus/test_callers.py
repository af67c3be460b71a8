"""Who calls, as the real bus daemon tells it, and who is forgotten when."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from logindguard.dbus import callers
from logindguard.dbus.callers import CallerGone, Callers
from logindguard.dbus.names import CallError
from logindguard.signals.bus import SystemBus

from .conftest import Daemon
from .fakes import FakeLogin1, Peer


class Known:
    """`gone` are those that were told to have left, `busy` those with a call of theirs going on."""

    def __init__(self, bus: SystemBus) -> None:
        self.gone: list[str] = []
        self.busy: set[str] = set()
        self.callers = Callers(bus, on_gone=self.gone.append, in_use=self.busy.__contains__)


@pytest.fixture
def known(bus: SystemBus) -> Iterator[Known]:
    known = Known(bus)
    yield known
    known.callers.stop()


async def test_user_and_process_are_those_of_the_connection(known: Known, stranger: Peer) -> None:
    first, second = await asyncio.gather(*(known.callers.identify(stranger.unique_name) for _ in range(2)))
    assert first is second
    assert (first.uid, first.pid) == (os.geteuid(), os.getpid())
    assert await first.is_there()


async def test_who_has_left_is_waited_for_by_nobody(known: Known, daemon: Daemon) -> None:
    peer = await Peer.connect(daemon.address)
    caller = await known.callers.identify(peer.unique_name)
    peer.close()
    known.callers.owner_changed(caller.unique_name, "")
    assert known.gone == [caller.unique_name]
    assert len(known.callers) == 0
    assert not await caller.is_there()
    with pytest.raises(CallerGone):
        await known.callers.identify(caller.unique_name)
    assert len(known.callers) == 0


async def test_where_the_bus_does_not_answer_nobody_is_let_in(
    known: Known, daemon: Daemon, stranger: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callers, "DEADLINE_SEC", 0.2)
    caller = await known.callers.identify(stranger.unique_name)
    daemon.freeze()
    try:
        with pytest.raises(CallError, match="does not tell who calls"):
            await known.callers.identify(":1.999")
    finally:
        daemon.thaw()
    daemon.kill()
    with pytest.raises(CallError, match="does not answer"):
        await caller.is_there()


async def test_those_without_a_call_make_room(
    known: Known, stranger: Peer, login1: FakeLogin1, bus: SystemBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callers, "MAX_KNOWN", 2)
    names = [stranger.unique_name, login1.unique_name, bus.unique_name]
    known.busy.add(names[0])
    for name in names:
        await known.callers.identify(name)
    assert len(known.callers) == 2
    await asyncio.sleep(0)
    first = await known.callers.identify(names[0])  # oldest, and known still
    assert len(known.callers) == 2
    assert first.unique_name == names[0]
