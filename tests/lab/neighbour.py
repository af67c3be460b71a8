#!/usr/bin/python3
"""A live neighbour: a process that holds clean page cache, and grows or shrinks when told.

    neighbour.py --work-dir DIR [--bytes N] [--cgroup CGROUP]

Stays in the cgroup that it is started in, unless told to enter another. Reads `grow N` and
`shrink N` (bytes) from its input and answers each, the start included, with one JSON line; removes
its files and ends with its input. What it holds is synced: whoever reclaims may take it at once.

Standard library only: it is copied into machines and run there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, NoReturn

CHUNK_BYTES = 1 << 20


class Hoard:
    """Page cache as files of CHUNK_BYTES: removing one gives its pages back at once."""

    def __init__(self, work_dir: Path) -> None:
        self._work_dir = work_dir
        self._chunks: list[Path] = []
        self._next = 0

    @property
    def held_bytes(self) -> int:
        return len(self._chunks) * CHUNK_BYTES

    def grow(self, size: int) -> None:
        for _ in range(-(-size // CHUNK_BYTES)):
            path = self._work_dir / f"chunk-{self._next}"
            self._next += 1
            self._chunks.append(path)
            with path.open("wb") as file:
                file.write(bytes(CHUNK_BYTES))
                file.flush()
                os.fdatasync(file.fileno())

    def shrink(self, size: int) -> None:
        for _ in range(min(-(-size // CHUNK_BYTES), len(self._chunks))):
            self._chunks.pop(0).unlink()


class Neighbour:
    """The other end: one running neighbour."""

    def __init__(self, commands: IO[str], answers: IO[str]) -> None:
        self._commands = commands
        self._answers = answers
        self.held_bytes = 0
        self._hear()

    def grow(self, size: int) -> None:
        self._tell(f"grow {size}")

    def shrink(self, size: int) -> None:
        self._tell(f"shrink {size}")

    def _tell(self, line: str) -> None:
        self._commands.write(line + "\n")
        self._commands.flush()
        self._hear()

    def _hear(self) -> None:
        line = self._answers.readline()
        if not line:
            raise RuntimeError("the neighbour ended")
        self.held_bytes = json.loads(line)["held_bytes"]


@contextmanager
def neighbour(*, work_dir: Path, size: int, cgroup: Path | None = None) -> Iterator[Neighbour]:
    """A neighbour for the length of a block, in a process of its own that ends with the caller's."""
    command = [sys.executable, __file__, "--work-dir", str(work_dir), "--bytes", str(size)]
    if cgroup is not None:
        command += ["--cgroup", str(cgroup)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Neighbour(process.stdin, process.stdout)
        process.stdin.close()
        if process.wait(60) != 0:
            raise RuntimeError(f"the neighbour ended with status {process.returncode}")


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--work-dir", type=Path, required=True, help="directory to make for the files")
    parser.add_argument("--bytes", type=int, default=100 * CHUNK_BYTES, help="page cache to start with")
    parser.add_argument("--cgroup", type=Path, help="cgroup directory to enter first")
    given = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    if given.cgroup is not None:
        (given.cgroup / "cgroup.procs").write_text("0")
    given.work_dir.mkdir()
    try:
        hoard = Hoard(given.work_dir)
        hoard.grow(given.bytes)
        print(json.dumps({"held_bytes": hoard.held_bytes}), flush=True)
        for line in sys.stdin:
            verb, size = line.split()
            {"grow": hoard.grow, "shrink": hoard.shrink}[verb](int(size))
            print(json.dumps({"held_bytes": hoard.held_bytes}), flush=True)
    finally:
        shutil.rmtree(given.work_dir)
    return 0


if __name__ == "__main__":
    sys.exit(main())
