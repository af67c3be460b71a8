"""A cgroup of this test run's own in the memory hierarchy that the machine has, v1 or v2."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.leak import Refusal, memory_mount


@pytest.fixture
def own_cgroup() -> Iterator[Path]:
    """Removed afterwards, and what is dying below it reclaimed first."""
    path = _memory_root() / f"lgtest-{os.getpid()}"
    path.mkdir()
    yield path
    if (path / "memory.force_empty").exists():
        (path / "memory.force_empty").write_text("0")
    for directory, _, _ in os.walk(path, topdown=False):
        _rmdir(Path(directory))


@pytest.fixture
def disk_dir(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory on a disk: /tmp may be a tmpfs, whose pages no reclaim can take."""
    path = Path("/var/tmp") / f"lgtest-{os.getpid()}"
    path.mkdir()
    yield path
    left = [each.name for each in path.iterdir()]
    shutil.rmtree(path)
    assert not left, f"{request.node.name} left files: {left}"


def _memory_root() -> Path:
    for mount in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")):
        with contextlib.suppress(Refusal):
            found, version = memory_mount(mount)
            if version == 1 or "memory" in (found / "cgroup.subtree_control").read_text().split():
                return found
    pytest.skip("no memory controller here that children of the root get")


def _rmdir(path: Path) -> None:
    deadline = time.monotonic() + 5
    while True:
        try:
            path.rmdir()
        except OSError as error:
            # The last process of it is still on its way out.
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
