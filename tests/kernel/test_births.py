"""What is told of births beside a target, on a plain directory: inotify sees both alike."""

from __future__ import annotations

import errno
import os
import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from logindguard.kernel.births import Births
from logindguard.kernel.cgroupfs import Cgroup, CgroupGone
from logindguard.kernel.inotify import Inotify

DEADLINE_SEC = 10


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Cgroup]:
    with Cgroup(os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY), "/parent") as cgroup:
        yield cgroup


def test_directories_are_told_of_while_the_block_lasts(parent: Cgroup, tmp_path: Path) -> None:
    births, names = Births(), queue.Queue[str]()
    (tmp_path / "before").mkdir()
    with births.told(parent, names.put):
        (tmp_path / "a file").touch()
        (tmp_path / "amid").mkdir()
        told = [names.get(timeout=DEADLINE_SEC) for _ in range(3)]  # again and again
    assert set(told) == {"amid"}
    (tmp_path / "after").mkdir()
    drained = queue.Queue[str]()
    with births.told(parent, drained.put):
        (tmp_path / "again").mkdir()
        while drained.get(timeout=DEADLINE_SEC) != "again":  # of the one before too, since it is so new
            pass


def test_births_of_late_are_known_in_the_next_block(parent: Cgroup, tmp_path: Path) -> None:
    births, names = Births(), queue.Queue[str]()
    with births.told(parent, names.put) as lately:
        assert lately is not None
        assert not lately()
        (tmp_path / "amid").mkdir()
        names.get(timeout=DEADLINE_SEC)
        assert lately()
    with births.told(parent, names.put) as lately:
        assert lately is not None
        assert lately()
        (tmp_path / "amid").rmdir()
        until(lambda: not lately())
    assert not births._parents
    with births.told(parent, names.put) as lately:
        assert lately is not None
        assert not lately()


def test_a_watch_is_kept_for_a_moment_only(parent: Cgroup, tmp_path: Path) -> None:
    births, names = Births(), queue.Queue[str]()
    with births.told(parent, names.put):
        (tmp_path / "amid").mkdir()
        names.get(timeout=DEADLINE_SEC)
    (tmp_path / "after").mkdir()
    until(lambda: not births._parents)
    assert "after" not in [*names.queue]


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SEC
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_that_cannot_be_covered_does_not_end_it(parent: Cgroup, tmp_path: Path) -> None:
    names = queue.Queue[str]()

    def cover(name: str) -> None:
        names.put(name)
        raise CgroupGone(name)

    with Births().told(parent, cover):
        (tmp_path / "one").mkdir()
        assert names.get(timeout=DEADLINE_SEC) == "one"
        (tmp_path / "two").mkdir()
        while names.get(timeout=DEADLINE_SEC) != "two":
            pass


def test_a_parent_that_goes_meanwhile(parent: Cgroup, tmp_path: Path) -> None:
    with Births().told(parent, lambda name: None):
        tmp_path.rmdir()
    tmp_path.mkdir()


def test_where_there_is_no_watch_nothing_is_told(parent: Cgroup, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(inotify: Inotify, path: str, mask: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    monkeypatch.setattr(Inotify, "add", refuse)
    entered = False
    with Births().told(parent, lambda name: None):
        entered = True
    assert entered
