"""The system manager as a source: stop jobs before, removals after, and its many false alarms."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from logindguard.signals.bus import BusError, SystemBus
from logindguard.signals.systemd1 import Systemd1

from .conftest import Daemon, Lag, not_reading
from .fakes import FakeSystemd1, Peer, Tree, until

SCOPE = "/user.slice/user-1000.slice/session-3.scope"
ENDING = ("session-3.scope", 101, "ending", "systemd1")
ENDED = ("session-3.scope", 101, "ended", "systemd1")


@pytest.fixture
async def source(bus: SystemBus, tree: Tree, systemd1: FakeSystemd1) -> AsyncIterator[Systemd1]:
    source = Systemd1(bus, tree.registry, tree.inode_of, deadline_sec=60)
    await source.start()
    await until(lambda: not source.silent)
    assert systemd1.calls == ["Subscribe"]
    systemd1.calls.clear()
    yield source
    source.stop()
    await asyncio.sleep(0)


async def settle(bus: SystemBus, systemd1: FakeSystemd1, source: Systemd1) -> None:
    """Until all that systemd has sent so far was handled here, and what it was asked was answered."""
    await systemd1.flush()
    await bus.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "GetId")
    await until(lambda: len(source._chores) == 0)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        pytest.param("mkdir new rmdir removed", [ENDED], id="a natural end"),
        pytest.param("mkdir stop rmdir removed", [ENDING, ENDED], id="a stop job"),
        pytest.param("mkdir stop stop rmdir removed removed", [ENDING, ENDED], id="everything twice"),
        pytest.param("mkdir stop job-removed stop rmdir removed", [ENDING, ENDING, ENDED],
                     id="a stop job that was canceled, and another"),
        pytest.param("mkdir rmdir removed new removed new removed new removed", [ENDED],
                     id="logind looks the dead scope up three times"),
        pytest.param("mkdir new removed new removed", [], id="removed, but its directory stays"),
        pytest.param("mkdir start restart reload", [], id="jobs that end nothing"),
        pytest.param("stop", [], id="a stop job of what is not known"),
        pytest.param("mkdir rmdir removed stop", [ENDED], id="a stop job after the end"),
        pytest.param("mkdir stop rmdir removed mkdir rmdir removed",
                     [ENDING, ENDED, ("session-3.scope", 102, "ended", "systemd1")], id="a reused id"),
        pytest.param("mkdir rmdir mkdir removed rmdir removed",
                     [("session-3.scope", 101, "ended", "cgroup-watch"),
                      ("session-3.scope", 102, "ended", "systemd1")],
                     id="a reused id, and the end of the first one is late"),
    ],
)  # fmt: skip
async def test_what_is_told(
    bus: SystemBus,
    systemd1: FakeSystemd1,
    source: Systemd1,
    tree: Tree,
    steps: str,
    expected: list[tuple[str, int, str, str]],
) -> None:
    unit = "session-3.scope"
    for step in steps.split():
        match step:
            case "mkdir":
                tree.mkdir(SCOPE)
            case "rmdir":
                tree.rmdir(SCOPE)
            case "new":
                systemd1.unit_new(unit)
            case "removed":
                systemd1.unit_removed(unit)
            case "job-removed":
                systemd1.job_removed(unit)
            case job_type:
                systemd1.job_new(unit, job_type)
        await settle(bus, systemd1, source)
    assert tree.brief == expected


async def test_only_jobs_of_live_covered_units_are_looked_at(
    bus: SystemBus, systemd1: FakeSystemd1, source: Systemd1, tree: Tree
) -> None:
    tree.mkdir(SCOPE)
    for unit in ("nginx.service", "session-4.scope", "session-3.scope"):
        systemd1.job_new(unit, "stop")
    await settle(bus, systemd1, source)
    systemd1.job_new("session-3.scope", "stop")
    await settle(bus, systemd1, source)
    assert systemd1.calls == ["Get"]


@pytest.mark.parametrize("result", ["canceled", "failed", "timeout", "dependency", "done"])
async def test_what_a_stop_job_left_is_not_ending(
    bus: SystemBus, systemd1: FakeSystemd1, source: Systemd1, tree: Tree, result: str
) -> None:
    tree.mkdir(SCOPE)
    systemd1.job_new("session-3.scope", "stop")
    await settle(bus, systemd1, source)
    [teardown] = tree.told
    assert not tree.registry.lives_on(teardown)
    systemd1.job_removed("session-3.scope", result)
    await settle(bus, systemd1, source)
    assert tree.registry.lives_on(teardown)
    tree.rmdir(SCOPE)
    systemd1.unit_removed("session-3.scope")
    await settle(bus, systemd1, source)
    assert not tree.registry.lives_on(teardown)  # gone is not alive
    assert not source._jobs


async def test_a_job_that_ends_before_it_was_looked_at(
    bus: SystemBus, systemd1: FakeSystemd1, source: Systemd1, tree: Tree
) -> None:
    """What it is, and that it was canceled, come in one turn of the loop."""
    tree.mkdir(SCOPE)
    systemd1.job_new("session-3.scope", "stop")
    while not len(source._chores):  # noqa: ASYNC110  # the errand is to begin while nothing is read
        await asyncio.sleep(0)
    with not_reading(bus):
        await until(lambda: systemd1.calls == ["Get"])
        systemd1.job_removed("session-3.scope", "canceled")
        await systemd1.flush()
    await settle(bus, systemd1, source)
    assert (tree.told, source._jobs) == ([], {})


@pytest.mark.parametrize("loss", ["a new systemd", "the connection"])
async def test_where_the_end_of_a_job_may_go_unheard_nothing_is_ending(
    bus: SystemBus, systemd1: FakeSystemd1, source: Systemd1, tree: Tree, loss: str
) -> None:
    tree.mkdir(SCOPE)
    systemd1.job_new("session-3.scope", "stop")
    await settle(bus, systemd1, source)
    [teardown] = tree.told
    assert not tree.registry.lives_on(teardown)
    if loss == "the connection":
        source.stop()
    else:
        await systemd1.disown(FakeSystemd1.NAME)
    await until(lambda: tree.registry.lives_on(teardown))


async def test_a_stranger_ends_no_job(
    bus: SystemBus, systemd1: FakeSystemd1, source: Systemd1, tree: Tree, stranger: Peer
) -> None:
    tree.mkdir(SCOPE)
    systemd1.job_new("session-3.scope", "stop")
    await settle(bus, systemd1, source)
    stranger.emit(
        *("org.freedesktop.systemd1.Manager", "JobRemoved", FakeSystemd1.PATH, "uoss"),
        *(1, "/org/freedesktop/systemd1/job/1", "session-3.scope", "canceled"),
        to=bus.unique_name,
    )
    await stranger.flush()
    await settle(bus, systemd1, source)
    assert not tree.registry.lives_on(tree.told[0])


@pytest.mark.parametrize("trouble", ["silent", "error"])
async def test_a_job_that_cannot_be_looked_at(
    bus: SystemBus, systemd1: FakeSystemd1, source: Systemd1, tree: Tree, trouble: str
) -> None:
    if trouble == "silent":
        systemd1.silent.add("Get")
        source._chores._deadline_sec = 0.2
    else:
        systemd1.errors["Get"] = "org.freedesktop.DBus.Error.UnknownObject"
    tree.mkdir(SCOPE)
    systemd1.job_new("session-3.scope", "stop")
    tree.rmdir(SCOPE)
    systemd1.unit_removed("session-3.scope")
    await settle(bus, systemd1, source)
    assert tree.brief == [ENDED]


async def test_forged_stop_jobs_are_not_looked_at(
    bus: SystemBus, systemd1: FakeSystemd1, source: Systemd1, tree: Tree, stranger: Peer
) -> None:
    tree.mkdir(SCOPE)
    stranger.emit(
        *("org.freedesktop.systemd1.Manager", "JobNew", FakeSystemd1.PATH, "uos"),
        *(1, "/org/freedesktop/systemd1/job/1", "session-3.scope"),
        to=bus.unique_name,
    )
    await stranger.flush()
    await settle(bus, systemd1, source)
    assert (systemd1.calls, tree.brief) == ([], [])


@pytest.mark.usefixtures("source")
async def test_a_reload_and_a_new_owner_are_subscribed_to_again(systemd1: FakeSystemd1) -> None:
    systemd1.reloading(True)
    systemd1.reloading(False)
    await until(lambda: systemd1.calls == ["Subscribe"])
    await systemd1.disown(FakeSystemd1.NAME)
    await systemd1.own(FakeSystemd1.NAME)
    await until(lambda: systemd1.calls == ["Subscribe"] * 2)


async def test_already_subscribed_is_harmless(
    bus: SystemBus, systemd1: FakeSystemd1, tree: Tree, caplog: pytest.LogCaptureFixture
) -> None:
    systemd1.errors["Subscribe"] = "org.freedesktop.systemd1.AlreadySubscribed"
    source = Systemd1(bus, tree.registry, tree.inode_of)
    with caplog.at_level("DEBUG", logger="logindguard"):
        await source.start()
        await until(lambda: systemd1.calls)
        await settle(bus, systemd1, source)
    assert systemd1.calls == ["Subscribe"]
    assert caplog.records == []


async def test_no_systemd_on_this_bus(bus: SystemBus, tree: Tree, stranger: Peer) -> None:
    told: list[str] = []
    manager = Systemd1(bus, tree.registry, tree.inode_of, changed=lambda: told.append(manager.silent))
    await manager.start()
    assert manager.silent == "not on the bus"
    await stranger.own(FakeSystemd1.NAME)
    await until(lambda: stranger.calls == ["Subscribe"])
    refusal = "refused (org.freedesktop.DBus.Error.UnknownObject: not here)"
    await until(lambda: told == ["no answer yet", refusal])
    manager.stop()
    await asyncio.sleep(0)


async def test_one_that_does_not_answer_is_asked_again(
    bus: SystemBus, tree: Tree, systemd1: FakeSystemd1, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logindguard.signals.manager.MEET_AGAIN_SEC", 0.05)
    systemd1.silent.add("Subscribe")
    manager = Systemd1(bus, tree.registry, tree.inode_of, deadline_sec=0.2)
    await manager.start()
    await until(lambda: len(systemd1.calls) >= 2)
    assert set(systemd1.calls) == {"Subscribe"}
    assert manager.silent == "no answer yet"
    systemd1.silent.clear()
    await until(lambda: not manager.silent)
    manager.stop()


async def test_the_bus_goes_while_a_job_is_looked_at(
    bus: SystemBus, daemon: Daemon, systemd1: FakeSystemd1, source: Systemd1, tree: Tree
) -> None:
    systemd1.silent.add("Get")
    tree.mkdir(SCOPE)
    systemd1.job_new("session-3.scope", "stop")
    await until(lambda: systemd1.calls == ["Get"])
    daemon.kill()
    await asyncio.wait_for(bus.wait_disconnected(), 60)
    await until(lambda: len(source._chores) == 0)
    with pytest.raises(BusError):
        await Systemd1(bus, tree.registry, tree.inode_of).start()


async def test_ten_thousand_ends_at_once(
    bus: SystemBus, systemd1: FakeSystemd1, source: Systemd1, tree: Tree, worst_lag: Lag
) -> None:
    slice_ = "/user.slice/user-1000.slice"
    for number in range(10_000):
        tree.mkdir(f"{slice_}/session-{number}.scope")
    tree.directories.clear()
    with not_reading(bus):
        for number in range(10_000):
            systemd1.unit_removed(f"session-{number}.scope")
            if number % 100 == 0:
                await systemd1.flush()
        await systemd1.flush()
    worst_lag.cpu_sec = 0.0
    await until(lambda: len(tree.told) == 10_000)
    await settle(bus, systemd1, source)
    assert len({teardown.inode for teardown in tree.told}) == 10_000
    assert len(tree.registry) == 0
    assert worst_lag.cpu_sec < 0.2
