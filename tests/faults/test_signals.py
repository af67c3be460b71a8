"""Signals that are missing, late, twice, of reused ids or of nothing, and ten thousand of them at once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from logindguard import guard as guard_module
from logindguard.config import Config, SweepSettings, TeardownSettings
from logindguard.guard import Guard
from logindguard.model import Phase, ReclaimRecord, Source, Teardown
from logindguard.reclaimer import Reclaimer, now_usec
from logindguard.signals.bus import SystemBus
from logindguard.signals.confirm import monotonic_usec
from logindguard.signals.login1 import Login1
from logindguard.signals.systemd1 import Systemd1
from logindguard.sweep import Sweep
from tests.bus.conftest import bus, daemon, login1, short_dir, systemd1, tree
from tests.bus.fakes import FakeLogin1, FakeSystemd1, Tree, until
from tests.faults.conftest import Scale
from tests.unit.fake_backend import MIB, FakeBackend

__all__ = ["bus", "daemon", "login1", "short_dir", "systemd1", "tree"]  # fixtures

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
        if chance.random() < 0.02:
            await asyncio.sleep(0)
        if chance.random() < 0.005:  # what has been sent is read, so that not all comes at the end
            await login1.flush()
            await systemd1.flush()
    await login1.flush()
    await systemd1.flush()
    await bus.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "GetId")
    reconcile(tree)
    told = Counter(teardown.inode for teardown in tree.told if teardown.phase is Phase.ENDED)
    assert set(told.values()) == {1}, "a cgroup was told twice"
    assert set(told) == set(removed), "a cgroup that lives was told, or one that ended was not"


@pytest.fixture
def executors() -> Iterator[tuple[ThreadPoolExecutor, ThreadPoolExecutor]]:
    with ThreadPoolExecutor(1, "prompt") as prompt, ThreadPoolExecutor(1, "idle") as idle:
        yield prompt, idle


async def test_what_is_shed_is_the_sweeps(
    executors: tuple[ThreadPoolExecutor, ThreadPoolExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty thousand cgroups of one user end at once, below parents that hold something, and one of another."""
    monkeypatch.setattr("logindguard.sweep.some_percent", lambda what: 0.0)
    backend = FakeBackend()
    for number in range(30):
        backend.hold(f"{SLICE}/user@1000.service/a{number}.slice", 1_000, MIB)
    other = "/user.slice/user-1001.slice"
    backend.hold(other, 1, MIB)
    config = Config(
        teardown=TeardownSettings(settle_usec=20_000, settle_max_usec=60_000),
        sweep=SweepSettings(interval_usec=10_000_000, cpu_percent=100.0, grace_dying=1 << 30),
    )
    reclaimer = Reclaimer(backend, config, prompt=executors[0], idle=executors[1])
    told: list[ReclaimRecord] = []

    async def no_rescan() -> None:
        return

    guard = Guard(reclaimer, tell=told.append, leave=lambda record, decision: None)
    sweep = Sweep(
        reclaimer,
        tell=told.append,
        tell_paused=lambda reason: None,
        tell_forecast=lambda dying, usec: None,
        free=guard.free,
        rescan=no_rescan,
    )
    for number in range(30_000):
        path = f"{SLICE}/user@1000.service/a{number // 1_000}.slice/session-{number}.scope"
        guard.heard(
            Teardown(
                unit=f"session-{number}.scope",
                path=path,
                inode=number + 1,
                phase=Phase.ENDED,
                source=Source.CGROUP_WATCH,
                heard_usec=now_usec(),
            )
        )
    guard.heard(
        Teardown(
            unit="session-1.scope",
            path=f"{other}/session-1.scope",
            inode=99_999,
            phase=Phase.ENDED,
            source=Source.LOGIN1,
            heard_usec=now_usec(),
        )
    )
    assert guard._taken.total() == guard_module.MAX_WAITING // 2 + 1
    assert guard.shed_total == 30_000 - guard_module.MAX_WAITING // 2
    serving = asyncio.create_task(guard.run())
    try:
        await until(lambda: guard._taken.total() == 0 and guard.free.is_set())
        assert [record.target for record in told].count(other) == 1
        left = [path for path, residue in backend.state.items() if residue.dying]
        assert len(left) == 25
        sweeping = asyncio.create_task(sweep.run())
        await until(lambda: not any(residue.dying for residue in backend.state.values()))
        sweeping.cancel()
    finally:
        serving.cancel()
    await asyncio.gather(serving, sweeping, return_exceptions=True)
