"""A bus that is not there, has neither logind nor systemd, gets them later, or goes: each is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from logindguard.model import Source
from logindguard.signals.listener import Listener

from .conftest import Daemon
from .fakes import FakeLogin1, FakeSystemd1, Tree, until

ALL = (Source.LOGIN1, Source.SYSTEMD1, Source.CGROUP_WATCH)
TREE = (Source.CGROUP_WATCH,)


class Told(list[tuple[tuple[Source, ...], str]]):
    def take(self, sources: tuple[Source, ...], why: str) -> None:
        self.append((sources, why))


@pytest.fixture
async def told(short_dir: Path, tree: Tree) -> AsyncIterator[Told]:
    """What a listener at the bus of `daemon` tells, whether that runs or not."""
    told = Told()
    address = f"unix:path={short_dir}/bus"
    listener = Listener(address, tree.registry, tree.inode_of, tell=told.take, retry_sec=0.05, settle_sec=1.0)
    task = asyncio.create_task(listener.run())
    yield told
    task.cancel()
    await asyncio.wait([task])


async def test_no_bus_and_then_one_with_all(told: Told, short_dir: Path) -> None:
    await until(lambda: told)
    assert told == [(TREE, f"no system bus (unix:path={short_dir}/bus: No such file or directory)")]
    daemon = Daemon(short_dir)
    try:
        await until(lambda: told[1:] == [(TREE, "not on the bus: logind and systemd")])
        systemd1 = await FakeSystemd1.connect(daemon.address)
        await until(lambda: told[2:] == [((Source.SYSTEMD1, *TREE), "not on the bus: logind")])
        login1 = await FakeLogin1.connect(daemon.address)
        await until(lambda: told[3:] == [(ALL, "")])
        login1.close()
        await until(lambda: told[4:] == [((Source.SYSTEMD1, *TREE), "not on the bus: logind")])
        systemd1.close()
    finally:
        daemon.kill()


async def test_a_bus_that_is_lost_and_found(
    daemon: Daemon, login1: FakeLogin1, systemd1: FakeSystemd1, told: Told, short_dir: Path
) -> None:
    await until(lambda: told == [(ALL, "")])
    daemon.kill()
    await until(lambda: len(told) == 2)
    assert told[1][0] == TREE
    assert "bus" in told[1][1]
    (short_dir / "bus").unlink(missing_ok=True)
    again = Daemon(short_dir)
    try:
        peers = [await FakeLogin1.connect(again.address), await FakeSystemd1.connect(again.address)]
        await until(lambda: told[-1] == (ALL, ""))
        for peer in peers:
            peer.close()
    finally:
        again.kill()


async def test_a_restart_of_systemd_is_not_worth_a_word(
    daemon: Daemon, login1: FakeLogin1, systemd1: FakeSystemd1, told: Told
) -> None:
    await until(lambda: told)
    await systemd1.disown(FakeSystemd1.NAME)
    await systemd1.own(FakeSystemd1.NAME)
    await until(lambda: systemd1.calls == ["Subscribe", "Subscribe"])
    await asyncio.sleep(1.5)
    assert told == [(ALL, "")]


async def test_one_that_does_not_answer(
    daemon: Daemon, login1: FakeLogin1, systemd1: FakeSystemd1, told: Told
) -> None:
    systemd1.silent.add("Subscribe")
    await until(lambda: told)
    assert told == [((Source.LOGIN1, *TREE), "no answer yet: systemd")]
