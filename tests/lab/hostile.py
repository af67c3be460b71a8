#!/usr/bin/python3
"""What a user may do below their own manager to confuse or starve whoever watches cgroups.

    hostile.py --cgroups N --seconds N

Run in a delegated cgroup of the user's own. Makes N cgroups named like sessions, slices and worse,
then for N seconds has more of them come and go while it sets memory.min of its own to and fro. At
the end each memory.min of its own holds what it says in one JSON line; then it waits to be killed.

Standard library only: it is copied into machines and run there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

KEPT_BYTES = 8 << 20
GAMES = 40  # cgroups whose memory.min goes to and fro
NAMES = (
    "session-{}.scope",
    "run-{}.scope",
    "user-{}.slice",
    "user@{}.service",
    "cron-{}.service",
    "session-{}.scope\x1b[31m<0>forged",
    "session-{}.scope" + "x" * 200,
    "..{}",
    "%s%n{}",
)


def own_cgroup() -> Path:
    [line] = [each for each in Path("/proc/self/cgroup").read_text().splitlines() if each.startswith("0::")]
    return Path("/sys/fs/cgroup") / line.removeprefix("0::/")


def name(number: int) -> str:
    return NAMES[number % len(NAMES)].format(number)


def make(base: Path, number: int) -> Path:
    path = base / name(number)
    path.mkdir()
    return path


def set_minimum(path: Path, value: str) -> None:
    (path / "memory.min").write_text(value)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cgroups", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    given = parser.parse_args()
    base = own_cgroup()
    own = base / "own"
    own.mkdir()
    (own / "cgroup.procs").write_text("0")
    (base / "cgroup.subtree_control").write_text("+memory")
    made = [make(base, number) for number in range(given.cgroups)]
    with contextlib.suppress(OSError):  # cgroupfs has no symbolic links: it says so
        (base / "session-0.link").symlink_to("/sys/fs/cgroup/system.slice")
    print(json.dumps({"made": len(made)}), flush=True)
    rounds = came = 0
    until = time.monotonic() + given.seconds
    while time.monotonic() < until:
        passing = [make(base, given.cgroups + came + n) for n in range(50)]
        (passing[0] / "cgroup.procs").write_text("0")  # charged for what follows
        Path("/tmp/hostile").write_bytes(os.urandom(64 << 10))
        (own / "cgroup.procs").write_text("0")
        for path in made[:GAMES]:
            set_minimum(path, ("0", "max", "1M")[rounds % 3])
        for path in passing:
            path.rmdir()
        came += len(passing)
        rounds += 1
    for path in made[:GAMES]:
        set_minimum(path, str(KEPT_BYTES))
    print(json.dumps({"came": came, "kept_bytes": KEPT_BYTES, "games": GAMES, "base": str(base)}), flush=True)
    signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
