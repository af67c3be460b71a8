#!/usr/bin/python3
"""A process that enters cgroups, one after the other, and has page cache charged to each.

    visitor.py HOME

HOME is the cgroup that it goes back to after each visit. Reads lines, answers each with "done":

    read CGROUP FILE OFFSET BYTES     clean pages: none of the file should be in memory yet
    write CGROUP FILE BYTES           a file of its own, synced

Ends with its input. What it allocates itself would pin a cgroup, so it allocates nothing to speak of
there. Standard library only: it is copied into machines and run there.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

BLOCK_BYTES = 1 << 20


class Visitor:
    """The other end: one running visitor."""

    def __init__(self, commands: IO[str], answers: IO[str]) -> None:
        self._commands = commands
        self._answers = answers

    def read(self, cgroup: Path, file: Path, offset: int, size: int) -> None:
        self._tell(f"read {cgroup} {file} {offset} {size}")

    def write(self, cgroup: Path, file: Path, size: int) -> None:
        self._tell(f"write {cgroup} {file} {size}")

    def _tell(self, line: str) -> None:
        self._commands.write(line + "\n")
        self._commands.flush()
        if self._answers.readline() != "done\n":
            raise RuntimeError(f"the visitor could not {line}")


@contextmanager
def visitor(home: Path) -> Iterator[Visitor]:
    """A visitor for the length of a block, in a process of its own that ends with the caller's."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, __file__, str(home)], stdin=pipe, stdout=pipe, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Visitor(process.stdin, process.stdout)


def _enter(cgroup: str) -> None:
    descriptor = os.open(f"{cgroup}/cgroup.procs", os.O_WRONLY)
    try:
        os.write(descriptor, b"0")  # 0: the writer itself
    finally:
        os.close(descriptor)


def _read(buffer: bytearray, file: str, offset: int, size: int) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        # Single pages, no folios of many: those are as good as free to reclaim.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        for at in range(offset, offset + size, BLOCK_BYTES):
            os.preadv(descriptor, [memoryview(buffer)[: min(BLOCK_BYTES, offset + size - at)]], at)
    finally:
        os.close(descriptor)


def _write(buffer: bytearray, file: str, size: int) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        for at in range(0, size, BLOCK_BYTES):
            os.pwritev(descriptor, [memoryview(buffer)[: min(BLOCK_BYTES, size - at)]], at)
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def main(home: str) -> None:
    buffer = bytearray(b"x" * BLOCK_BYTES)
    gc.disable()
    for line in sys.stdin:
        verb, cgroup, file, *numbers = line.split()
        _enter(cgroup)
        try:
            if verb == "read":
                _read(buffer, file, *map(int, numbers))
            else:
                _write(buffer, file, int(numbers[0]))
        finally:
            _enter(home)
        print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
