"""One subtree of ours on the real cgroup v2, and the backend confined to it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from logindguard.kernel.cgroupfs import Hierarchy, MemoryStat, detect
from logindguard.kernel.features import Features, probe
from logindguard.kernel.ledger import Ledger
from logindguard.kernel.v2 import V2Backend
from logindguard.model import Reclaim, Window

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _native(request: pytest.FixtureRequest) -> None:
    request.node.add_marker("native")


@dataclass
class Ground:
    """`parent` is where dying memcgs are made, live neighbours beside them."""

    hierarchy: Hierarchy
    features: Features
    backend: V2Backend
    ledger: Ledger
    top: str
    work_dir: Path

    @property
    def parent(self) -> str:
        return f"{self.top}/p"

    def directory(self, path: str) -> Path:
        return self.hierarchy.mount / path.strip("/")

    def make(self, path: str, *, control: bool = True) -> Path:
        directory = self.directory(path)
        directory.mkdir()
        if control:
            (directory / "cgroup.subtree_control").write_text("+memory")
        return directory

    def stat(self, path: str) -> MemoryStat:
        with self.hierarchy.open(path) as cgroup:
            return cgroup.memory_stat()

    def dying(self, path: str) -> int:
        with self.hierarchy.open(path) as cgroup:
            return cgroup.dying()

    def memory_min(self, path: str) -> int | None:
        with self.hierarchy.open(path) as cgroup:
            return cgroup.memory_limit("memory.min")

    def reclaim(self, path: str, *, max_bytes: int = 512 * MIB, keep_mapped: bool = False) -> Window:
        """One window, long enough for all of it under emulation."""
        plan = Reclaim(
            max_bytes=max_bytes,
            keep_mapped=keep_mapped,
            window_usec=1_000_000,
            write_usec=4_000,
            reason="test",
        )
        return self.backend.reclaim(self.backend.read(path).residue, plan, lambda: False)

    def reclaim_all(self, path: str, *, deadline_sec: float = 15) -> list[Window]:
        """Windows until nothing is dying below `path`, or the deadline.

        The last few take patience, in the guard too, which retries: memory.stat lags by two seconds, and
        RCU and a kworker free a memcg some time after its last page.
        """
        done = [self.reclaim(path)]
        deadline = time.monotonic() + deadline_sec
        while self.dying(path) and time.monotonic() < deadline:
            if not done[-1].freed_bytes:
                time.sleep(1)
            done.append(self.reclaim(path))
        return done

    def settle(self) -> None:
        """memory.stat is flushed every two seconds; a memcg is freed by a kworker."""
        time.sleep(2.5)


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    hierarchy = detect()
    assert hierarchy is not None
    top = f"/lgtest-{os.getpid()}"
    ledger = Ledger(tmp_path / "run")
    ledger.prepare()
    work_dir = Path(
        f"/var/tmp/lgtest-{os.getpid()}"
    )  # a disk: tmp_path may be tmpfs, which is not page cache
    work_dir.mkdir()
    directory = hierarchy.mount / top.strip("/")
    directory.mkdir()
    (directory / "cgroup.subtree_control").write_text("+memory")
    features = probe(hierarchy, top)
    ground = Ground(
        hierarchy, features, V2Backend(hierarchy, features, ledger, roots=(top,)), ledger, top, work_dir
    )
    ground.make(ground.parent)
    try:
        yield ground
    finally:
        shutil.rmtree(work_dir)
        _remove(hierarchy.mount / top.strip("/"))


def _remove(directory: Path) -> None:
    for entry in directory.iterdir():
        if entry.is_dir():
            _remove(entry)
    directory.rmdir()
