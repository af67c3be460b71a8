#!/usr/bin/python3
"""Reclaim as rivals do it: the same write to one control file, so many times, each one timed.

    calls.py FILE VALUE [--times N] [--pause SEC] [--sync]

Prints "ready", begins with the first line of its input, ends early with its end, and prints one JSON
object: wall and CPU time of each call, and of the process. Standard library only.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import select
import sys
import time
from pathlib import Path


def call(file: Path, value: str) -> tuple[int, int]:
    """Microseconds: passed, and used. Less reclaimed than asked for is an answer too."""
    descriptor = os.open(file, os.O_WRONLY)
    wall, cpu = time.monotonic_ns(), time.thread_time_ns()
    try:
        os.write(descriptor, value.encode())
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EBUSY):
            raise
    finally:
        took = (time.monotonic_ns() - wall) // 1000, (time.thread_time_ns() - cpu) // 1000
        os.close(descriptor)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("value")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--sync", action="store_true", help="write what is dirty to the disks first")
    given = parser.parse_args()
    print("ready", flush=True)
    sys.stdin.readline()
    used_nsec = time.process_time_ns()
    if given.sync:
        os.sync()
    calls = []
    for index in range(given.times):
        if index and select.select([sys.stdin], [], [], given.pause)[0]:
            break
        calls.append(call(given.file, given.value))
    cpu_usec = (time.process_time_ns() - used_nsec) // 1000
    print(json.dumps({"cpu_usec": cpu_usec, "calls": calls}), flush=True)
    sys.stdin.read()  # whoever looks at /proc still finds it there


if __name__ == "__main__":
    main()
