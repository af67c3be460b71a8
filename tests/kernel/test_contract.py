"""What the fake cgroupfs is held to: the same assertions on it and on the real one.

Where the memory controller is on v2, which is inside the virtual machines, the real side is v2; natively
on v1 it has what v1 has: removal, inodes, names, and what a handle says of them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from logindguard.kernel.cgroupfs import (
    PAGE_BYTES,
    Cgroup,
    CgroupGone,
    Hierarchy,
    KernelRefused,
    Unsupported,
    detect,
)
from tests.faults.kernfs import bury, kernfs
from tests.kernel.conftest import V1, V2, RealTree, Tree
from tests.unit.fake_cgroupfs import FakeTree

MIB = 1 << 20


class V1Tree:
    """The words of FakeTree that v1 has, below one directory of ours."""

    def __init__(self) -> None:
        found = detect()
        assert found is not None
        self.hierarchy = Hierarchy(1, found.mount / f"lgtest-{os.getpid()}", found.options)
        self.hierarchy.mount.mkdir()

    def directory(self, path: str) -> Path:
        return self.hierarchy.mount / path.strip("/")

    def add(self, path: str) -> Path:
        directory = self.directory(path)
        directory.mkdir()
        return directory

    def remove(self, path: str) -> None:
        directory = self.directory(path)
        for entry in directory.iterdir():
            if entry.is_dir():
                self.remove(f"{path}/{entry.name}")
        directory.rmdir()


AnyTree = Tree | V1Tree


def gone(tree: AnyTree, path: str) -> None:
    if isinstance(tree, FakeTree):
        bury(tree, path)
    else:
        tree.remove(path)


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeTree]:
    (tmp_path / "cgroup").mkdir()
    with kernfs():
        yield FakeTree(tmp_path / "cgroup")


@pytest.fixture(
    params=[
        "fake",
        *([pytest.param("v1", marks=pytest.mark.native)] if V1 else []),
        *([pytest.param("v2", marks=pytest.mark.native)] if V2 else []),
    ]
)
def any_tree(request: pytest.FixtureRequest) -> Iterator[AnyTree]:
    if request.param == "fake":
        yield request.getfixturevalue("fake")
        return
    real: V1Tree | RealTree
    if request.param == "v2":
        assert V2 is not None
        real = RealTree(V2, f"lgcontract-{os.getpid()}")
    else:
        real = V1Tree()
    try:
        yield real
    finally:
        real.remove("/")


@pytest.fixture(params=["fake", *([pytest.param("v2", marks=pytest.mark.native)] if V2 else [])])
def tree(request: pytest.FixtureRequest) -> Iterator[Tree]:
    if request.param == "fake":
        yield request.getfixturevalue("fake")
        return
    assert V2 is not None
    real = RealTree(V2, f"lgcontract-{os.getpid()}")
    try:
        yield real
    finally:
        real.remove("/")


# On any hierarchy


def test_a_removed_cgroup_is_gone_for_who_holds_it_open(any_tree: AnyTree) -> None:
    any_tree.add("/a")
    with any_tree.hierarchy.open("/a") as cgroup:
        assert cgroup.alive()
        gone(any_tree, "/a")
        assert not cgroup.alive()
        for file in ("memory.stat", "cgroup.procs"):
            with pytest.raises(CgroupGone):
                cgroup.read(file)
        with pytest.raises(CgroupGone):
            cgroup.write("memory.force_empty" if any_tree.hierarchy.version == 1 else "memory.min", "0")
        with pytest.raises(CgroupGone):
            cgroup.open_child("b")
        assert cgroup.child_names() == []


def test_a_name_that_comes_again_is_another_cgroup(any_tree: AnyTree) -> None:
    inodes = set()
    for _ in range(20):
        any_tree.add("/a")
        inode = any_tree.hierarchy.inode_of("/a")
        assert inode is not None
        inodes.add(inode)
        gone(any_tree, "/a")
        assert any_tree.hierarchy.inode_of("/a") is None
    assert len(inodes) == 20


def test_children_are_the_directories(any_tree: AnyTree) -> None:
    for path in ("/a", "/b", "/a/c"):
        any_tree.add(path)
    with any_tree.hierarchy.open("/") as top:
        assert sorted(top.child_names()) == ["a", "b"]
        assert sorted(child.path for child in top.children()) == ["/a", "/b"]


def test_what_is_no_file_of_this_kernel(any_tree: AnyTree) -> None:
    any_tree.add("/a")
    with any_tree.hierarchy.open("/a") as cgroup:
        with pytest.raises(Unsupported):
            cgroup.read("memory.no_such_file")
        with pytest.raises(Unsupported):
            cgroup.write("memory.no_such_file", "0")


def test_a_control_file_is_no_child(any_tree: AnyTree) -> None:
    any_tree.add("/a")
    with pytest.raises(CgroupGone):
        any_tree.hierarchy.open("/a/memory.stat")
    with any_tree.hierarchy.open("/a") as cgroup, pytest.raises(KernelRefused):
        cgroup.open_child("memory.stat")


# What only v2 has


@pytest.mark.parametrize("file", ["memory.min", "memory.swap.max"])
@pytest.mark.parametrize(
    ("written", "read"),
    [
        (0, 0),
        (64 * MIB, 64 * MIB),
        (None, None),
        (PAGE_BYTES, PAGE_BYTES),
        (PAGE_BYTES + 1, PAGE_BYTES),
        (PAGE_BYTES - 1, 0),
        ((1 << 40) + PAGE_BYTES, (1 << 40) + PAGE_BYTES),
    ],
)
def test_limits_are_whole_pages(tree: Tree, file: str, written: int | None, read: int | None) -> None:
    tree.add("/a")
    with tree.hierarchy.open("/a") as cgroup:
        cgroup.set_memory_limit(file, 1 << 40)
        cgroup.set_memory_limit(file, written)
        assert cgroup.memory_limit(file) == read


def test_what_a_new_cgroup_has(tree: Tree) -> None:
    tree.add("/a")
    with tree.hierarchy.open("/a") as cgroup:
        assert cgroup.memory_limit("memory.min") == 0
        assert cgroup.memory_limit("memory.swap.max") is None
        assert cgroup.memory_limit("memory.max") is None
        assert cgroup.memory_limit("memory.high") is None
        assert cgroup.memory_current() >= 0
        assert cgroup.dying() == 0
        assert "memory" in cgroup.controllers()
        assert "memory" in cgroup.controllers_below()
        assert cgroup.memory_stat().pgsteal == 0


def asking(tree: Tree, request_bytes: int) -> int:
    """The errno of a request to an empty cgroup; 0 where it was met."""
    tree.add("/a")
    with tree.hierarchy.open("/a") as cgroup:
        try:
            cgroup.write("memory.reclaim", str(request_bytes))
        except KernelRefused as error:
            return error.errno or 0
    return 0


@pytest.mark.parametrize(("request_bytes", "answer"), [(0, 0), (16 * MIB, errno.EAGAIN)])
def test_less_than_was_asked_is_told(tree: Tree, request_bytes: int, answer: int) -> None:
    assert asking(tree, request_bytes) == answer


def test_a_handle_keeps_what_it_is(tree: Tree) -> None:
    """By its descriptor, whatever its path means by now."""
    tree.add("/a")
    with tree.hierarchy.open("/a") as cgroup:
        gone(tree, "/a")
        tree.add("/a")
        with pytest.raises(CgroupGone):
            cgroup.set_memory_limit("memory.min", 4096)
        assert tree.memory_min("/a") == "0"
        with tree.hierarchy.open("/a") as other:
            assert isinstance(other, Cgroup)
            assert other.inode != cgroup.inode
