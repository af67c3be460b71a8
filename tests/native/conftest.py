"""A cgroup, a bus and a place for settings: all that the daemon may see of this machine."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from logindguard.kernel.cgroupfs import detect
from tests.bus.conftest import Daemon as Bus
from tests.native.launcher import Launcher


@pytest.fixture
def short_dir() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="lg-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def root() -> Iterator[str]:
    """The subtree that the program is confined to."""
    hierarchy = detect()
    assert hierarchy is not None, "no memory controller here"
    path = f"/lgtest-{os.getpid()}"
    directory = hierarchy.mount / path.strip("/")
    directory.mkdir()
    yield path
    directory.rmdir()


@pytest.fixture
def bus(short_dir: Path) -> Iterator[Bus]:
    bus = Bus(short_dir)
    yield bus
    bus.kill()


@pytest.fixture
def launcher(short_dir: Path, root: str) -> Iterator[Launcher]:
    launcher = Launcher(short_dir, root)
    yield launcher
    launcher.close()
