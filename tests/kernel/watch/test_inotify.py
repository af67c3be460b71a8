"""The facts at the top of inotify.py, on the real cgroup file system."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from logindguard.kernel.inotify import IN_CREATE, IN_DELETE, IN_IGNORED, IN_ISDIR, IN_ONLYDIR, Inotify

pytestmark = pytest.mark.native

MASK = IN_CREATE | IN_DELETE | IN_ONLYDIR


@pytest.fixture
def inotify() -> Iterator[Inotify]:
    inotify = Inotify()
    yield inotify
    inotify.close()
    inotify.close()


def test_births_and_ends_of_cgroups(inotify: Inotify, own_cgroup: Path) -> None:
    wd = inotify.add(str(own_cgroup), MASK)
    assert inotify.read() == []
    (own_cgroup / "a.scope").mkdir()
    (own_cgroup / "a.scope").rmdir()
    assert inotify.read() == [
        (wd, IN_CREATE | IN_ISDIR, "a.scope"),
        (wd, IN_DELETE | IN_ISDIR, "a.scope"),
    ]


def test_one_watch_an_inode(inotify: Inotify, own_cgroup: Path) -> None:
    assert inotify.add(str(own_cgroup), MASK) == inotify.add(f"{own_cgroup}/", MASK)


def test_the_watch_of_a_removed_cgroup_stays_until_it_is_removed(inotify: Inotify, own_cgroup: Path) -> None:
    (own_cgroup / "a.slice").mkdir()
    wd = inotify.add(str(own_cgroup / "a.slice"), MASK)
    (own_cgroup / "a.slice").rmdir()
    assert inotify.read() == []
    (own_cgroup / "a.slice").mkdir()
    assert inotify.add(str(own_cgroup / "a.slice"), MASK) != wd
    inotify.remove(wd)
    assert inotify.read() == [(wd, IN_IGNORED, "")]
    with pytest.raises(OSError, match="Invalid argument") as caught:
        inotify.remove(wd)
    assert caught.value.errno == errno.EINVAL


def test_what_cannot_be_watched(inotify: Inotify, own_cgroup: Path) -> None:
    with pytest.raises(FileNotFoundError):
        inotify.add(str(own_cgroup / "nowhere"), MASK)
    with pytest.raises(NotADirectoryError):
        inotify.add(str(own_cgroup / "cgroup.procs"), MASK)


def test_a_burst_is_read_in_pieces_and_in_order(inotify: Inotify, own_cgroup: Path) -> None:
    inotify.add(str(own_cgroup), MASK)
    for number in range(1_000):
        (own_cgroup / f"session-{number}.scope").mkdir()
        (own_cgroup / f"session-{number}.scope").rmdir()
    pieces = list(iter(inotify.read, []))
    assert len(pieces) > 1
    names = [event.name for piece in pieces for event in piece if event.mask & IN_DELETE]
    assert names == [f"session-{number}.scope" for number in range(1_000)]
