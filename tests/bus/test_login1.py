"""logind as a source: sessions are described, removals believed only when the directory agrees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from logindguard.model import Source
from logindguard.signals.bus import SystemBus
from logindguard.signals.login1 import Login1

from .fakes import FakeLogin1, Peer, Tree, until

SLICE = "/user.slice/user-1000.slice"
SCOPE = f"{SLICE}/session-3.scope"


@pytest.fixture
async def source(bus: SystemBus, tree: Tree, login1: FakeLogin1) -> AsyncIterator[Login1]:
    source = Login1(bus, tree.registry, tree.inode_of, deadline_sec=60)
    await source.start()
    await until(lambda: login1.calls == ["ListSessions"])
    login1.calls.clear()
    yield source
    source.stop()
    await asyncio.sleep(0)


async def settle(bus: SystemBus, login1: FakeLogin1) -> None:
    """Until all that logind has sent so far was handled here."""
    await login1.flush()
    await bus.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "GetId")


ENDED = ("session-3.scope", 101, "ended", "login1")


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize(
    "order",
    [
        "new appear answer rmdir removed",
        "new answer appear rmdir removed",
        "appear new answer rmdir removed",
        "new appear answer rmdir removed removed removed",
    ],
)
async def test_any_order(bus: SystemBus, login1: FakeLogin1, tree: Tree, order: str) -> None:
    login1.add("3", 1000, "sshd")
    for step in order.split():
        if step == "new":
            login1.session_new("3")
        elif step == "answer":
            await until(lambda: login1.calls == ["GetAll"])
            await settle(bus, login1)
        elif step == "appear":
            tree.mkdir(SCOPE)
        elif step == "rmdir":
            tree.rmdir(SCOPE)
        elif step == "removed":
            login1.session_removed("3")
            await settle(bus, login1)
    assert tree.brief == [ENDED]
    assert (tree.told[0].session_id, tree.told[0].uid, tree.told[0].service) == ("3", 1000, "sshd")


async def test_sessions_that_are_there_at_start(bus: SystemBus, login1: FakeLogin1, tree: Tree) -> None:
    login1.add("3", 1000, "cron")
    login1.add("c1", 0, "login", scope="")  # no scope: nothing to describe
    tree.mkdir(SCOPE)
    source = Login1(bus, tree.registry, tree.inode_of)
    await source.start()
    await until(lambda: login1.calls.count("GetAll") == 2)
    await settle(bus, login1)
    tree.registry.ended(SCOPE, Source.CGROUP_WATCH, 0)
    assert tree.told[0].service == "cron"


@pytest.mark.usefixtures("source")
async def test_a_removed_session_whose_processes_live_on(
    bus: SystemBus, login1: FakeLogin1, tree: Tree
) -> None:
    tree.mkdir(SCOPE)
    login1.session_removed("3")
    await settle(bus, login1)
    assert tree.brief == []


@pytest.mark.usefixtures("source")
async def test_session_removed_never_comes(login1: FakeLogin1, tree: Tree) -> None:
    login1.add("3", 1000, "sshd")
    tree.mkdir(SCOPE)
    login1.session_new("3")
    await until(lambda: login1.calls == ["GetAll"])
    tree.registry.ended(SCOPE, Source.CGROUP_WATCH, 0)
    assert tree.brief == [("session-3.scope", 101, "ended", "cgroup-watch")]


@pytest.mark.usefixtures("source")
async def test_a_reused_id(bus: SystemBus, login1: FakeLogin1, tree: Tree) -> None:
    """The end of the first session is heard after the second has begun."""
    tree.mkdir(SCOPE)
    tree.rmdir(SCOPE)
    tree.directories[SCOPE] = 555  # a new scope, which the watch has not told of yet
    login1.session_removed("3")
    await settle(bus, login1)
    assert tree.brief == [ENDED]
    tree.registry.appeared(SCOPE, 555, 0)
    login1.session_removed("3")
    await settle(bus, login1)
    assert tree.brief == [ENDED]


@pytest.mark.usefixtures("source")
async def test_a_user_goes(bus: SystemBus, login1: FakeLogin1, tree: Tree) -> None:
    paths = [SLICE, f"{SLICE}/user@1000.service", f"{SLICE}/user@1000.service/app.slice/run-1.scope", SCOPE]
    for path in paths:
        tree.mkdir(path)
    for path in paths:
        tree.rmdir(path)
    tree.mkdir("/user.slice/user-10000.slice")
    login1.user_removed(1000)
    login1.user_removed(1000)
    await settle(bus, login1)
    assert sorted(teardown.inode for teardown in tree.told) == [101, 102, 103, 104]
    assert tree.told[-1].path == SLICE


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize("trouble", ["silent", "error", "gone"])
async def test_a_session_that_cannot_be_asked_for(
    bus: SystemBus, login1: FakeLogin1, tree: Tree, trouble: str, source: Login1
) -> None:
    if trouble == "silent":
        login1.silent.add("GetAll")
        source._chores._deadline_sec = 0.2
    elif trouble == "error":
        login1.errors["GetAll"] = "org.freedesktop.DBus.Error.AccessDenied"
    tree.mkdir(SCOPE)
    login1.session_new("3")
    await until(lambda: login1.calls == ["GetAll"])
    await until(lambda: len(source._chores) == 0)
    tree.rmdir(SCOPE)
    login1.session_removed("3")
    await settle(bus, login1)
    assert tree.brief == [ENDED]


@pytest.mark.usefixtures("source")
async def test_logind_restarts(login1: FakeLogin1) -> None:
    await login1.disown(FakeLogin1.NAME)
    await login1.own(FakeLogin1.NAME)
    await until(lambda: login1.calls == ["ListSessions"])


async def test_logind_starts_after_us(bus: SystemBus, daemon: object, tree: Tree, stranger: Peer) -> None:
    source = Login1(bus, tree.registry, tree.inode_of)
    try:
        await source.start()
        assert len(source._chores) == 0
        await stranger.own(FakeLogin1.NAME)
        await until(lambda: stranger.calls == ["ListSessions"])
        await until(lambda: source.silent.startswith("refused"))  # all is said, and it waits to ask again
    finally:
        source.stop()


@pytest.mark.usefixtures("source")
async def test_a_flood_of_forged_sessions_asks_nothing(
    bus: SystemBus, login1: FakeLogin1, stranger: Peer
) -> None:
    for number in range(200):
        stranger.emit(
            *("org.freedesktop.login1.Manager", "SessionNew", FakeLogin1.PATH, "so", str(number), "/x"),
            to=bus.unique_name,
        )
    await stranger.flush()
    await settle(bus, login1)
    assert login1.calls == []


async def test_a_flood_of_sessions_with_a_logind_that_hangs(
    bus: SystemBus, login1: FakeLogin1, tree: Tree
) -> None:
    source = Login1(bus, tree.registry, tree.inode_of, deadline_sec=30)
    await source.start()
    login1.silent.add("GetAll")
    for number in range(2_000):
        login1.session_new(str(number))
        if number % 100 == 0:
            await login1.flush()
    await settle(bus, login1)
    assert login1.calls.count("GetAll") <= 32
    assert len(source._chores) <= 1_056
    tree.mkdir(SCOPE)
    tree.rmdir(SCOPE)
    login1.session_removed("3")
    await settle(bus, login1)
    assert tree.brief == [ENDED], "removals are heard meanwhile"
    source.stop()
    await until(lambda: len(source._chores) == 0)
