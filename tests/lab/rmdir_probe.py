#!/usr/bin/python3
"""Makes and removes a cgroup again and again until its input ends.

    rmdir_probe.py DIRECTORY

Prints "ready", and at the end one JSON object: how many there were, and how long one mkdir or rmdir
took in ms. Standard library only: it is copied into machines and run there.
"""

from __future__ import annotations

import json
import select
import sys
import time
from pathlib import Path

PAUSE_SEC = 0.01


def main(directory: Path) -> None:
    took_msec: list[float] = []
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], PAUSE_SEC)[0]:
        for change in (directory.mkdir, directory.rmdir):
            began = time.monotonic()
            change()
            took_msec.append((time.monotonic() - began) * 1000)
    took_msec.sort()
    told = {
        "times": len(took_msec),
        "median": round(took_msec[len(took_msec) // 2], 1),
        "p99": round(took_msec[len(took_msec) * 99 // 100], 1),
        "longest": round(took_msec[-1], 1),
    }
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
