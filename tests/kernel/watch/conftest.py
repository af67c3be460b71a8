"""A cgroup of our own in the hierarchy of the memory controller, v1 or v2, removed with all below it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from logindguard.kernel.cgroupfs import detect


@pytest.fixture
def own_cgroup() -> Iterator[Path]:
    hierarchy = detect()
    assert hierarchy is not None, "these tests need a mounted memory controller"
    top = hierarchy.mount / f"lgwatch-{os.getpid()}"
    top.mkdir()
    try:
        yield top
    finally:
        for directory, _, _ in os.walk(top, topdown=False):
            Path(directory).rmdir()
