"""Planted residues, and whether the files behind them are named; on the real kernel of either version."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from logindguard.kernel.cgroupfs import Hierarchy, detect
from logindguard.kernel.charged_files import ChargedFile, Search, find
from logindguard.kernel.page_owner import NoPageOwners, PageOwners
from logindguard.kernel.pins import Kind, explain

MIB = 1 << 20
DEADLINE_SEC = 60.0
PLANTED = 10

pytestmark = pytest.mark.native


@dataclass
class Ground:
    """`parent` is live and empty; files are on a disk."""

    hierarchy: Hierarchy
    parent: Path
    files: Path

    @property
    def inode(self) -> int:
        return self.parent.stat().st_ino

    @property
    def path(self) -> str:
        return f"/{self.parent.relative_to(self.hierarchy.mount)}"

    def plant(self, name: str, size: int) -> Path:
        """A file that is on disk and not in the page cache."""
        path = self.files / name
        path.write_bytes(os.urandom(size))
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
            deadline = time.monotonic() + DEADLINE_SEC
            while cached(path):  # pages in a CPU's batch stay the first time
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                assert time.monotonic() < deadline
        finally:
            os.close(fd)
        return path

    def read_in(self, cgroup: Path, *files: Path) -> None:
        cgroup.mkdir(exist_ok=True)
        script = 'echo $$ >"$1/cgroup.procs"; shift; exec cat "$@"'
        subprocess.run(
            ["sh", "-c", script, "sh", cgroup, *files], check=True, stdout=subprocess.DEVNULL, timeout=60
        )

    def find(self, *directories: Path, inode: int | None = None, max_sec: float = 60) -> Search:
        with PageOwners() as owners:
            return find(directories, inode or self.inode, owners=owners, max_sec=max_sec)

    def found(self, count: int) -> list[ChargedFile]:
        """Once the removed cgroup is offline, which takes a moment: until then its pages are its own."""
        deadline = time.monotonic() + DEADLINE_SEC
        while len(found := self.find(self.files).found) < count:
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
        return found


def cached(path: Path) -> int:
    """Bytes in the page cache, whoever is charged for them."""
    with PageOwners() as owners, path.open("rb") as file:
        return owners.charged(file.fileno(), path.stat().st_size, 0)[0]


@pytest.fixture
def ground() -> Iterator[Ground]:
    hierarchy = detect()
    assert hierarchy is not None
    parent = hierarchy.mount / f"lgtest-files-{os.getpid()}"
    parent.mkdir()
    if hierarchy.version == 2:
        (parent / "cgroup.subtree_control").write_text("+memory")
    files = Path(f"/var/tmp/lgtest-files-{os.getpid()}")  # a disk: tmp_path may be tmpfs
    files.mkdir()
    try:
        yield Ground(hierarchy, parent, files)
    finally:
        for path in files.iterdir():
            path.unlink()
        files.rmdir()
        for entry in [*parent.iterdir(), parent]:
            if entry.is_dir():
                entry.rmdir()


def test_planted_files_are_named_largest_first(ground: Ground) -> None:
    planted = [ground.plant(f"file-{at}", MIB) for at in range(PLANTED)]
    largest = ground.plant("largest", 4 * MIB)
    other = ground.plant("of-a-live-neighbour", MIB)
    untouched = ground.plant("not-read", MIB)
    ground.read_in(ground.parent / "live", other)
    ground.read_in(ground.parent / "gone", largest, *planted)
    with planted[-1].open("rb"):
        planted[-1].unlink()
        (ground.parent / "gone").rmdir()
        found = ground.found(1 + PLANTED)
        assert cached(untouched) == 0  # looking reads nothing
    assert {each.path for each in found} == {str(path) for path in [largest, *planted]}
    assert found[0].path == str(largest)
    charged = [each.charged_bytes for each in found]
    assert charged == sorted(charged, reverse=True)
    # Not to the page: the kernel moves pages in memory, and gives some up, while it is looked at.
    assert all(each.charged_bytes >= each.cached_bytes * 0.8 for each in found)
    assert sum(charged) >= (4 + PLANTED) * MIB * 0.8
    assert {each.path: each.pid for each in found if each.pid} == {str(planted[-1]): os.getpid()}
    # memory.stat lags behind.
    assert explain(ground.hierarchy, ground.path).held(Kind.CLEAN) >= sum(charged) // 2
    live = ground.find(ground.files, inode=(ground.parent / "live").stat().st_ino)
    assert [each.path for each in live.found] == [str(other)]


def test_a_file_of_several_windows_and_one_that_ends_within_a_page(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logindguard.kernel.page_owner.WINDOW_PAGES", 100)
    small, large = ground.plant("small", 20_005), ground.plant("large", 3 * MIB)
    ground.read_in(ground.parent / "gone", small, large)
    (ground.parent / "gone").rmdir()
    found = ground.found(2)
    assert [each.path for each in found] == [str(large), str(small)]
    assert 3 * MIB * 0.8 <= found[0].charged_bytes <= 3 * MIB
    assert 0 < found[1].charged_bytes <= 5 * os.sysconf("SC_PAGE_SIZE")


def test_it_is_bounded_and_says_so(ground: Ground) -> None:
    for name in ("a", "b"):
        ground.plant(name, 5)
    search = ground.find(ground.files, max_sec=0)
    assert not search.complete
    assert search.files <= 1
    assert ground.find(ground.files).complete


def test_what_became_no_file_is_not_opened(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose directory it is may put a link there just then: to open a device may do things."""
    pipe = ground.files / "pipe"
    os.mkfifo(pipe)
    monkeypatch.setattr("logindguard.kernel.charged_files._regular", lambda *_: iter([str(pipe)]))
    writer = threading.Thread(target=lambda: os.close(os.open(pipe, os.O_WRONLY)))
    writer.start()  # it waits for somebody to open the other end
    try:
        time.sleep(0.1)
        ground.find(ground.files)
        assert writer.is_alive()
    finally:
        os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))
        writer.join(DEADLINE_SEC)


def test_what_is_no_directory_is_not_searched_in_vain(ground: Ground) -> None:
    with pytest.raises(NotADirectoryError):
        ground.find(ground.plant("file", 5))
    with pytest.raises(FileNotFoundError):
        ground.find(ground.files / "missing")


def test_a_kernel_without_the_file(tmp_path: Path) -> None:
    with pytest.raises(NoPageOwners, match="CONFIG_PROC_PAGE_MONITOR"), PageOwners(tmp_path):
        pass
