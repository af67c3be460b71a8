"""Trees to test the kernel seam on: plain files anywhere, the real thing where v2 has the controller."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from logindguard.kernel.cgroupfs import Hierarchy, detect
from tests.unit.fake_cgroupfs import FakeTree

DETECTED = detect()
V2 = DETECTED if DETECTED is not None and DETECTED.version == 2 and os.geteuid() == 0 else None

V1 = DETECTED is not None and DETECTED.version == 1 and os.geteuid() == 0

# The other one runs inside the virtual machines, by tests/vm/test_kernel.py.
collect_ignore = [name for name, here in (("v1", V1), ("v2", V2 is not None)) if not here]


class RealTree:
    """The same words as FakeTree on the real cgroupfs, below one directory of ours."""

    def __init__(self, hierarchy: Hierarchy, top: str) -> None:
        self.hierarchy = Hierarchy(2, hierarchy.mount / top, hierarchy.options)
        self.hierarchy.mount.mkdir()
        self._enable(self.hierarchy.mount)

    def _enable(self, directory: Path) -> None:
        (directory / "cgroup.subtree_control").write_text("+memory")

    def directory(self, path: str) -> Path:
        return self.hierarchy.mount / path.strip("/")

    def add(self, path: str) -> Path:
        directory = self.directory(path)
        directory.mkdir()
        self._enable(directory)
        return directory

    def remove(self, path: str) -> None:
        directory = self.directory(path)
        for entry in directory.iterdir():
            if entry.is_dir():
                self.remove(f"{path}/{entry.name}")
        directory.rmdir()

    def memory_min(self, path: str) -> str:
        return (self.directory(path) / "memory.min").read_text().strip()


Tree = FakeTree | RealTree


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.native)] if V2 else ["fake"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tree]:
    if request.param == "fake":
        top = tmp_path / "cgroup"
        top.mkdir()
        yield FakeTree(top)
        return
    assert V2 is not None
    real = RealTree(V2, f"lgtest-{os.getpid()}")
    try:
        yield real
    finally:
        real.remove("/")
