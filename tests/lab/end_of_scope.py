#!/usr/bin/python3
"""How long a session takes to end: from its last process of the user to the removal of its cgroup.

    end_of_scope.py CGROUP_DIRECTORY READY_FILE

Prints two numbers in ms, as soon as the cgroup is gone: from the end of the user's processes to that
of all (the time inside close_session), and from then to the removal. READY_FILE is made when it
watches. Standard library only: it is copied into machines and run there.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

POLL_SEC = 0.001
TIMEOUT_SEC = 180.0


def users_processes(directory: Path) -> int:
    """Those that do not run as root, and so are neither the session's leader nor its hook."""
    count = 0
    for pid in (directory / "cgroup.procs").read_text().split():
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:  # it has just ended
            continue
        count += "\nUid:\t0\t" not in status
    return count


def processes(directory: Path) -> int:
    return len((directory / "cgroup.procs").read_text().split())


def main(directory: Path, ready: Path) -> None:
    ready.touch()
    users_ended = all_ended = 0.0
    deadline = time.monotonic() + TIMEOUT_SEC
    try:
        while time.monotonic() < deadline:
            if not users_ended and users_processes(directory) == 0:
                users_ended = time.monotonic()
            if users_ended and processes(directory) == 0:
                all_ended = time.monotonic()
                break
            time.sleep(POLL_SEC)
        while directory.exists() and time.monotonic() < deadline:
            time.sleep(POLL_SEC)
    except OSError:  # the cgroup went between two looks
        pass
    gone = time.monotonic()
    all_ended = all_ended or gone
    users_ended = users_ended or all_ended
    print(round((all_ended - users_ended) * 1000), round((gone - all_ended) * 1000))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
