"""The cgroup tree as a source, on the real cgroup file system (inotify is the same on v1 and v2)."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import AsyncIterator, Callable
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from logindguard.config import Units
from logindguard.kernel import inotify
from logindguard.model import Teardown
from logindguard.signals.cgroup_watch import CgroupWatch
from logindguard.signals.confirm import monotonic_usec
from logindguard.signals.registry import Registry

pytestmark = pytest.mark.native

MAX_QUEUED_EVENTS = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
SLICE = "user.slice/user-1000.slice"
SCOPE = f"{SLICE}/session-1.scope"


class Rig:
    """A watch on a tree of ours, which it takes for the whole hierarchy."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.told: list[Teardown] = []
        self.registry = Registry(
            lambda unit: any(fnmatchcase(unit, glob) for glob in Units().include), self.told.append
        )
        self._watches: list[CgroupWatch] = []

    async def start(self, *roots: str, max_watches: int = 1_000) -> CgroupWatch:
        watch = CgroupWatch(self.top, roots, self.registry, max_watches=max_watches)
        self._watches.append(watch)
        await watch.start()
        return watch

    async def stop(self) -> None:
        for watch in self._watches:
            watch.stop()
        await asyncio.sleep(0)

    def mkdir(self, path: str) -> int:
        (self.top / path).mkdir(parents=True)
        return (self.top / path).stat().st_ino

    def rmdir(self, path: str) -> None:
        (self.top / path).rmdir()

    @property
    def ended(self) -> list[tuple[str, int]]:
        return [(teardown.path, teardown.inode) for teardown in self.told]

    @property
    def live(self) -> set[str]:
        return {path for path, _ in self.registry.entries()}


@pytest.fixture
async def rig(own_cgroup: Path) -> AsyncIterator[Rig]:
    rig = Rig(own_cgroup)
    yield rig
    await rig.stop()


async def until(condition: Callable[[], object], timeout_sec: float = 10.0) -> None:
    deadline = asyncio.get_running_loop().time() + timeout_sec
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)


async def test_a_session_comes_and_goes(rig: Rig) -> None:
    await rig.start()
    inode = rig.mkdir(SCOPE)
    await until(lambda: f"/{SCOPE}" in rig.live)
    rig.rmdir(SCOPE)
    await until(lambda: rig.told)
    [teardown] = rig.told
    assert (teardown.path, teardown.inode, teardown.uid, teardown.session_id, teardown.source.value) == (
        *(f"/{SCOPE}", inode),
        *(1000, "1", "cgroup-watch"),
    )


async def test_what_is_there_at_start(rig: Rig) -> None:
    rig.mkdir(SCOPE)
    rig.mkdir(f"{SLICE}/user@1000.service/app.slice/run-1.scope")
    rig.mkdir("system.slice/system-cron.slice/cron-daily.service")
    rig.mkdir("system.slice/docker-1.scope/session-9.scope")  # inside a container
    rig.mkdir("kubepods/session-9.scope")
    await rig.start()
    assert rig.live == {
        "/user.slice/user-1000.slice",
        f"/{SCOPE}",
        f"/{SLICE}/user@1000.service",
        f"/{SLICE}/user@1000.service/app.slice/run-1.scope",
        "/system.slice/system-cron.slice/cron-daily.service",
    }


async def test_a_whole_user_goes_and_each_is_told_once(rig: Rig) -> None:
    watch = await rig.start()
    below = [f"{SLICE}/user@1000.service", f"{SLICE}/user-runtime-dir@1000.service", SCOPE]
    inodes = {path: rig.mkdir(path) for path in below}
    await until(lambda: len(rig.live) == 4)
    assert watch.watches == 4  # the top, user.slice, user-1000.slice, user@1000.service
    for path in (*below, SLICE, "user.slice"):
        rig.rmdir(path)
    await until(lambda: len(rig.told) == 4)
    assert dict(rig.ended).items() >= {f"/{path}": inode for path, inode in inodes.items()}.items()
    assert rig.ended[-1][0] == f"/{SLICE}"
    assert watch.watches == 1, "watches of removed directories are given back"


async def test_a_reused_id_is_told_twice(rig: Rig) -> None:
    await rig.start()
    inodes = []
    for _ in range(2):
        inodes.append(rig.mkdir(SCOPE))
        await until(lambda: f"/{SCOPE}" in rig.live)
        rig.rmdir(SCOPE)
        await until(lambda: f"/{SCOPE}" not in rig.live)
    assert rig.ended == [(f"/{SCOPE}", inode) for inode in inodes]


async def test_a_namesake_before_the_events_are_read(rig: Rig) -> None:
    await rig.start()
    first = rig.mkdir(SCOPE)
    await until(lambda: f"/{SCOPE}" in rig.live)
    rig.rmdir(SCOPE)
    second = rig.mkdir(SCOPE)  # the loop had no turn in between
    await until(lambda: rig.registry.inode(f"/{SCOPE}") == second)
    await asyncio.sleep(0.05)
    assert rig.ended == [(f"/{SCOPE}", first)]


async def test_a_slice_that_was_made_anew_is_watched_anew(rig: Rig) -> None:
    watch = await rig.start()
    rig.mkdir(SLICE)
    await until(lambda: watch.watches == 3)
    rig.rmdir(SLICE)
    rig.mkdir(SCOPE)
    await until(lambda: f"/{SCOPE}" in rig.live)
    rig.mkdir(f"{SLICE}/session-2.scope")
    await until(lambda: f"/{SLICE}/session-2.scope" in rig.live)
    assert watch.watches == 3


async def test_one_that_was_too_short_to_be_seen(rig: Rig) -> None:
    rig.mkdir(SLICE)
    await rig.start()
    rig.mkdir(SCOPE)
    rig.rmdir(SCOPE)
    await until(lambda: rig.told)
    await asyncio.sleep(0.05)
    assert rig.ended == [(f"/{SCOPE}", 0)]


async def test_born_while_the_tree_is_walked(rig: Rig) -> None:
    """Nothing falls between the listing of a directory and the events of it."""
    for number in range(1_000):
        rig.mkdir(f"user.slice/user-{number}.slice")
    starting = asyncio.create_task(rig.start(max_watches=5_000))
    for number in range(0, 1_000, 7):
        rig.mkdir(f"user.slice/user-{number}.slice/session-{number}.scope")
        await asyncio.sleep(0)
    await starting
    await until(lambda: len([path for path in rig.live if path.endswith(".scope")]) == 143)
    assert rig.told == []


async def test_roots_confine(rig: Rig) -> None:
    rig.mkdir("user.slice/user-1000.slice/session-1.scope")
    rig.mkdir("user.slice/user-1001.slice/session-2.scope")
    rig.mkdir("user.slice/user-10000.slice/session-3.scope")
    await rig.start("/user.slice/user-1000.slice/")
    assert rig.live == {f"/{SCOPE}"}
    rig.mkdir("user.slice/user-1000.slice/any/thing/session-4.scope")
    await until(lambda: f"/{SLICE}/any/thing/session-4.scope" in rig.live)
    rig.rmdir("user.slice/user-1001.slice/session-2.scope")
    rig.rmdir(SCOPE)
    await until(lambda: rig.told)
    assert [path for path, _ in rig.ended] == [f"/{SCOPE}"]


async def test_a_root_that_is_not_there_yet(rig: Rig) -> None:
    await rig.start("/demo/user.slice")
    rig.mkdir("demo/user.slice/user-1000.slice/session-1.scope")
    await until(lambda: "/demo/user.slice/user-1000.slice/session-1.scope" in rig.live)
    assert "/demo/user.slice/user-1000.slice" in rig.live


async def test_a_rescan_finds_what_no_event_told(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = await rig.start()
    kept, gone = rig.mkdir(f"{SLICE}/session-2.scope"), rig.mkdir(SCOPE)
    await until(lambda: len(rig.live) == 3)
    monkeypatch.setattr(watch, "_handle", lambda event: None)  # deaf
    rig.rmdir(SCOPE)
    rig.mkdir("system.slice/run-1.service")
    reborn = f"{SLICE}/session-2.scope"
    rig.rmdir(reborn)
    again = rig.mkdir(reborn)
    await watch.rescan()
    assert sorted(rig.ended) == sorted([(f"/{SCOPE}", gone), (f"/{reborn}", kept)])
    assert rig.registry.inode(f"/{reborn}") == again
    assert "/system.slice/run-1.service" in rig.live


@pytest.mark.parametrize(
    ("max_watches", "later_usec", "walks"), [(100, 0, 0), (2, 0, 1), (100, 4 * 10**9, 1)]
)
async def test_events_are_trusted_where_they_tell_all(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, max_watches: int, later_usec: int, walks: int
) -> None:
    """The tree is walked again where a directory is not watched, and after an hour."""
    rig.mkdir(SCOPE)
    watch = await rig.start(max_watches=max_watches)
    walked = []

    async def walk() -> None:
        walked.append(1)

    monkeypatch.setattr(watch, "_walk", walk)
    monkeypatch.setattr(watch, "_clock", lambda: monotonic_usec() + later_usec)
    await watch.catch_up()
    assert len(walked) == walks


async def test_an_overflow_leads_to_a_rescan(rig: Rig) -> None:
    """More events than fs.inotify.max_queued_events while the loop has no turn."""
    watch = await rig.start()
    inode = rig.mkdir(SCOPE)
    await until(lambda: f"/{SCOPE}" in rig.live)
    for _ in range(MAX_QUEUED_EVENTS // 2 + 100):
        rig.mkdir(f"{SLICE}/noise")
        rig.rmdir(f"{SLICE}/noise")
    rig.rmdir(SCOPE)
    rig.mkdir("machine.slice/run-1.scope")
    await until(lambda: rig.told and "/machine.slice/run-1.scope" in rig.live)
    assert rig.ended == [(f"/{SCOPE}", inode)]
    assert watch.watches == 4


async def test_the_limit_of_watches_is_told_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(20):
        rig.mkdir(f"user.slice/user-{number}.slice/session-{number}.scope")
    watch = await rig.start(max_watches=10)
    assert watch.watches == 10
    assert len(rig.live) == 40, "what is not watched is still listed"
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1


async def test_users_cannot_use_up_the_watches(rig: Rig) -> None:
    watch = await rig.start(max_watches=20)
    for number in range(30):
        rig.mkdir(f"{SLICE}/user@1000.service/x{number}.slice")
    await until(lambda: watch.watches == 10)
    rig.mkdir("user.slice/user-1001.slice/session-7.scope")
    await until(lambda: "/user.slice/user-1001.slice/session-7.scope" in rig.live)
    assert watch.watches == 11


async def test_no_watch_to_be_had(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: inotify.Inotify, path: str, mask: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", path)

    rig.mkdir(SCOPE)
    monkeypatch.setattr(inotify.Inotify, "add", refuse)
    watch = await rig.start()
    assert watch.watches == 0
    assert f"/{SCOPE}" in rig.live
    assert "max_user_watches" in caplog.text
    rig.rmdir(SCOPE)
    await watch.rescan()
    assert [path for path, _ in rig.ended] == [f"/{SCOPE}"]


async def test_names_that_users_make_up(rig: Rig) -> None:
    await rig.start()
    for name in ("run-\x1b[31m.scope", "run- .scope", "run-ü.scope"):
        rig.mkdir(f"{SLICE}/user@1000.service/{name}")
    rig.mkdir(f"{SLICE}/user@1000.service/run-1.scope")
    await until(lambda: f"/{SLICE}/user@1000.service/run-1.scope" in rig.live)
    assert len(rig.live) == 3


async def test_a_big_tree_does_not_hold_up_the_loop(rig: Rig) -> None:
    for number in range(5_000):
        rig.mkdir(f"{SLICE}/session-{number}.scope")
    worst_cpu_sec = 0.0
    starting = asyncio.create_task(rig.start())
    while not starting.done():
        before = time.thread_time()
        await asyncio.sleep(0)
        worst_cpu_sec = max(worst_cpu_sec, time.thread_time() - before)
    await starting
    assert len(rig.live) == 5_001
    assert worst_cpu_sec < 0.1


async def test_stopping_twice_is_harmless(rig: Rig) -> None:
    watch = await rig.start()
    watch.stop()
    watch.stop()
    assert watch.watches == 0
