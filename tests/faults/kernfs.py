"""What the kernel makes of a write to a control file, for trees of plain files.

Hard facts, which tests/kernel/test_contract.py holds to the real cgroupfs: a write takes effect as a
whole or not at all; memory.min and memory.swap.max keep whole pages; memory.reclaim answers EAGAIN
when it found less than was asked; a removed cgroup is gone for those who hold it open, and its
inode never comes back.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from logindguard.kernel.cgroupfs import PAGE_BYTES, Cgroup
from tests.unit.fake_cgroupfs import STAT_KEYS, FakeTree

LIMITS = ("memory.min", "memory.swap.max")
_WIDTH = 24  # of a value, so that one write leaves nothing of a longer one


@contextmanager
def kernfs() -> Iterator[None]:
    """Meanwhile `Cgroup.write` is the kernel's."""
    plain = Cgroup.write
    Cgroup.write = write  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        Cgroup.write = plain  # type: ignore[method-assign]


def write(cgroup: Cgroup, file: str, value: str) -> None:
    with cgroup.errors(file):
        if file == "memory.reclaim":
            _reclaim(cgroup, int(value.split()[0]))
        else:
            put(cgroup.fd, file, value)


def put(directory: int | Path, file: str, value: str) -> None:
    """A value as the kernel keeps it; in one system call, which SIGKILL does not cut in two."""
    if value != "max":
        value = str(int(value) // PAGE_BYTES * PAGE_BYTES)
    if isinstance(directory, Path):
        fd = os.open(directory / file, os.O_WRONLY)
    else:
        fd = os.open(file, os.O_WRONLY, dir_fd=directory)
    try:
        os.pwrite(fd, f"{value:<{_WIDTH}}\n".encode(), 0)
    finally:
        os.close(fd)


def _reclaim(cgroup: Cgroup, asked_bytes: int) -> None:
    """Takes clean page cache of dying memcgs, as long as there is any."""
    directory = Path(f"/proc/self/fd/{cgroup.fd}")  # not by what may be made to fail
    words = (directory / "memory.stat").read_text().split()
    stat = {key: int(number) for key, number in zip(words[::2], words[1::2], strict=True)}
    taken_bytes = min(asked_bytes, stat["file"])
    stat["file"] -= taken_bytes
    stat["pgsteal"] += taken_bytes // PAGE_BYTES
    (directory / "memory.stat").write_text("".join(f"{key} {stat[key]}\n" for key in STAT_KEYS))
    if not stat["file"]:
        (directory / "cgroup.stat").write_text("nr_descendants 0\nnr_dying_descendants 0\n")
    if asked_bytes > taken_bytes:
        raise OSError(errno.EAGAIN, "less than was asked")


def bury(tree: FakeTree, path: str) -> None:
    """rmdir, of what is below it too: who holds it open finds nothing in it, and the inode stays taken."""
    grave = tree.hierarchy.mount.parent / "graves"
    grave.mkdir(exist_ok=True)
    place = grave / str(len(list(grave.iterdir())))
    tree.directory(path).rename(place)
    for directory, _, files in os.walk(place):
        for file in files:
            Path(directory, file).unlink()
