"""Signals that are missing, late, twice, of reused ids or of nothing, and ten thousand of them at once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from logindguard import guard as guard_module
from logindguard.model import Phase, Source
from logindguard.signals.bus import SystemBus
from logindguard.signals.confirm import monotonic_usec
from logindguard.signals.login1 import Login1
from logindguard.signals.systemd1 import Systemd1
from tests.bus.conftest import bus, daemon, login1, not_reading, short_dir, systemd1, tree
from tests.bus.fakes import FakeLogin1, FakeSystemd1, Tree, until
from tests.faults.conftest import Scale
from tests.unit.fake_backend import MIB
from tests.unit.test_guard import Rig, calm_host, executors, rig, teardown

# Fixtures.
__all__ = ["bus", "calm_host", "daemon", "executors", "login1", "rig", "short_dir", "systemd1", "tree"]

SLICE = "/user.slice/user-1000.slice"
IDS = 40  # of sessions: few, so that they are reused all the time


@pytest.fixture
async def sources(
    bus: SystemBus, tree: Tree, login1: FakeLogin1, systemd1: FakeSystemd1
) -> AsyncIterator[tuple[Login1, Systemd1]]:
    ours = Login1(bus, tree.registry, tree.inode_of), Systemd1(bus, tree.registry, tree.inode_of)
    for source in ours:
        await source.start()
    await until(lambda: not ours[1].silent)
    yield ours
    for source in ours:
        source.stop()
    await asyncio.sleep(0)


def reconcile(tree: Tree) -> None:
    """What the walk of each sweep does."""
    for path, inode in tree.registry.entries():
        if tree.inode_of(path) != inode:
            tree.registry.ended(path, Source.CGROUP_WATCH, monotonic_usec())


@pytest.mark.usefixtures("sources")
async def test_a_storm_of_signals_that_lie(
    bus: SystemBus,
    tree: Tree,
    login1: FakeLogin1,
    systemd1: FakeSystemd1,
    chance: random.Random,
    scale: Scale,
) -> None:
    removed: list[int] = []
    signals = 0
    for number in range(IDS):
        login1.add(str(number), 1000, "sshd")

    def signal(session_id: str) -> None:
        scope = f"session-{session_id}.scope"
        match chance.randrange(6):
            case 0:
                login1.session_removed(session_id)
            case 1:
                login1.session_new(session_id)
            case 2:
                systemd1.unit_removed(scope)
            case 3:
                systemd1.unit_new(scope)
            case 4:
                systemd1.job_new(scope, chance.choice(("stop", "start")))
            case _:
                login1.user_removed(1000)

    with not_reading(bus):
        while signals < scale(2_000, 10_000):
            session_id = str(chance.randrange(IDS))
            path = f"{SLICE}/session-{session_id}.scope"
            inode = tree.directories.get(path)
            if inode is None:
                tree.mkdir(path)
            else:
                removed.append(inode)
                tree.rmdir(path)
            # Of this one or another, whatever is true, and as often as may be.
            for _ in range(chance.choice((0, 1, 1, 2, 4))):
                signals += 1
                signal(session_id if chance.random() < 0.9 else str(chance.randrange(IDS)))
            if len(removed) % 20 == 0:  # a socket holds no more; and nothing is read here meanwhile
                await login1.flush()
                await systemd1.flush()
        await login1.flush()
        await systemd1.flush()
    await bus.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "GetId")
    reconcile(tree)
    told = Counter(teardown.inode for teardown in tree.told if teardown.phase is Phase.ENDED)
    assert set(told.values()) == {1}, "a cgroup was told twice"
    assert set(told) == set(removed), "a cgroup that lives was told, or one that ended was not"


async def test_what_is_shed_is_the_sweeps(rig: Rig) -> None:
    """Thirty thousand cgroups of one user end at once, below parents that hold something; one of another."""
    other = "/user.slice/user-1001.slice"
    parents = [f"{SLICE}/user@1000.service/a{number}.slice" for number in range(30)]
    for path in (*parents, other):
        rig.backend.hold(path, 1, MIB)
    for number in range(30_000):
        rig.guard.heard(teardown(f"session-{number}.scope", parents[number // 1_000], inode=number + 1))
    rig.guard.heard(teardown("session-1.scope", other))
    guard, state = rig.guard, rig.backend.state
    assert guard.waiting_count == guard_module.MAX_WAITING // 2 + 1
    assert guard.shed_total == 30_000 - guard_module.MAX_WAITING // 2
    await until(lambda: guard.waiting_count == 0 and guard.free.is_set())
    assert [record.target for record in rig.told].count(other) == 1
    assert len([path for path, residue in state.items() if residue.dying]) == 25
    sweeping = asyncio.create_task(rig.sweep.run())
    await until(lambda: not any(residue.dying for residue in state.values()))
    sweeping.cancel()
    await asyncio.wait([sweeping])
