"""One subtree of ours on the real cgroup v1, and the backend confined to it."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from logindguard import policy
from logindguard.config import Config
from logindguard.kernel.cgroupfs import Hierarchy, detect
from logindguard.kernel.features import probe
from logindguard.kernel.ledger import Ledger
from logindguard.kernel.v1 import V1Backend
from logindguard.kernel.v1_stat import Counters, read_stat
from logindguard.model import Decision, Reclaim, Residue, Window
from tests.lab.leak import Pattern, Summary, leaked
from tests.lab.neighbour import Neighbour, neighbour

MIB = 1 << 20
DEFAULTS = Config()
SHARED = replace(DEFAULTS, reclaim=replace(DEFAULTS.reclaim, shared=True))


@pytest.fixture(autouse=True)
def _native(request: pytest.FixtureRequest) -> None:
    request.node.add_marker("native")


@dataclass
class Ground:
    """`parent` is where dying memcgs are made, live neighbours beside them."""

    hierarchy: Hierarchy
    backend: V1Backend
    top: str
    work_dir: Path
    ledger: Ledger

    @property
    def parent(self) -> str:
        return f"{self.top}/p"

    def directory(self, path: str) -> Path:
        return self.hierarchy.mount / path.strip("/")

    def make(self, path: str) -> Path:
        directory = self.directory(path)
        directory.mkdir()
        return directory

    def local(self, path: str) -> Counters:
        with self.hierarchy.open(path) as cgroup:
            return read_stat(cgroup).local

    @contextlib.contextmanager
    def dying(
        self, count: int, *, size: int = 16 << 10, pattern: Pattern = Pattern.READ, under: str = ""
    ) -> Iterator[Summary]:
        with leaked(
            root=self.directory(self.top),
            parent=self.directory(under or self.parent),
            work_dir=self.work_dir / "leak",
            count=count,
            bytes_each=size,
            pattern=pattern,
        ) as summary:
            self.settle()
            yield summary

    @contextlib.contextmanager
    def live(self, name: str, size: int) -> Iterator[Neighbour]:
        cgroup = self.make(f"{self.parent}/{name}")
        with neighbour(work_dir=self.work_dir / name, size=size, cgroup=cgroup) as held:
            self.settle()
            yield held

    def settle(self) -> None:
        """memory.stat is flushed every two seconds."""
        time.sleep(2.5)

    def decide(self, path: str, config: Config = SHARED) -> Decision:
        return policy.decide(self.backend.read(path), config)

    def residue(self, path: str) -> Residue | None:
        """None where it holds nothing any more."""
        residue = self.backend.read(path).residue
        return residue if residue.file_bytes else None

    def reclaim(self, path: str, config: Config = SHARED) -> list[Window]:
        """Windows until a decision, or the kernel, ends it."""
        done: list[Window] = []
        while not done or done[-1].freed_bytes:
            reading = self.backend.read(path)
            decision = policy.decide(reading, config)
            if not isinstance(decision, Reclaim):
                break
            done.append(self.backend.reclaim(reading.residue, decision, lambda: False))
        return done

    def release(self, path: str, *, deadline_sec: float = 60) -> list[Window]:
        """Windows until nothing is left.

        Some take patience, in the guard too: dirty pages, those in a CPU's LRU batch, buffers on a
        journal's list.
        """
        done = self.reclaim(path)
        deadline = time.monotonic() + deadline_sec
        while self.residue(path):
            assert time.monotonic() < deadline
            self.settle()
            done += self.reclaim(path)
        return done

    def wait_for_no_residue(self, *, deadline_sec: float = 30) -> None:
        """Anywhere: a parent that is read in the middle of a flush still shows what its child gave."""
        deadline = time.monotonic() + deadline_sec
        while left := self.backend.residues():
            assert time.monotonic() < deadline, left
            time.sleep(0.1)


@pytest.fixture
def ground() -> Iterator[Ground]:
    hierarchy = detect()
    assert hierarchy is not None
    top = f"/lgtest-{os.getpid()}"
    work_dir = Path(f"/var/tmp/lgtest-{os.getpid()}")  # a disk: tmp_path may be tmpfs
    work_dir.mkdir()
    (hierarchy.mount / top.strip("/")).mkdir()
    ledger = Ledger(work_dir / "run")
    ledger.prepare()
    backend = V1Backend(hierarchy, probe(hierarchy), ledger, roots=(top,))
    ground = Ground(hierarchy, backend, top, work_dir, ledger)
    ground.make(ground.parent)
    try:
        yield ground
    finally:
        shutil.rmtree(work_dir)
        _remove(ground.directory(top))


def _remove(directory: Path) -> None:
    for entry in directory.iterdir():
        if entry.is_dir():
            _remove(entry)
    directory.rmdir()
