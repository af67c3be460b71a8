#!/usr/bin/python3
"""Holds shielded windows of the real service open: SIGSTOP while its ledger names cgroups below a slice.

    hold_window.py --slice SLICE --file FILE

For each `hold` on its input it has a scope below SLICE read FILE and end, stops the service inside
the window that follows, and answers with one JSON line: what the ledger says. `go` lets it go on.
Ends with its input, and does not leave the service stopped.

Standard library only: it is copied into machines and run there.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

UNIT = "logindguard.service"
MOUNT = "/sys/fs/cgroup"
LEDGER = Path("/run/logindguard/ledger")
TRIES = 20
TRY_SEC = 15


def main_pid() -> int:
    shown = subprocess.run(
        ["systemctl", "show", "--property=MainPID", "--value", UNIT], check=True, capture_output=True
    )
    return int(shown.stdout)


def entries(slice_: str) -> list[dict[str, object]]:
    """Of the ledger as it is now, below this slice; the latest of each cgroup."""
    try:
        found: list[dict[str, object]] = json.loads(LEDGER.read_text())
    except FileNotFoundError:
        return []
    latest = {str(entry["path"]): entry for entry in found}
    return [entry for path, entry in latest.items() if path.startswith(f"/{slice_}/")]


def is_raised(entry: dict[str, object]) -> bool:
    """The ledger is written before memory.min is, and emptied after it was put back."""
    return Path(f"{MOUNT}{entry['path']}/memory.min").read_text().strip() == str(entry["ours_bytes"])


def stop(pid: int) -> None:
    """Returns when each thread has stopped: one that was in the kernel comes out of it first."""
    os.kill(pid, signal.SIGSTOP)
    while any(stat.read_text().rpartition(")")[2].split()[0] not in "TZ" for stat in _threads(pid)):
        time.sleep(0.001)


def _threads(pid: int) -> list[Path]:
    return list(Path("/proc", str(pid), "task").glob("*/stat"))


def leave(slice_: str, file: Path) -> None:
    """A scope that reads the file and ends: its page cache is what the window is for."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
    command = ["systemd-run", "--quiet", "--scope", f"--slice={slice_}", "cat", str(file)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def hold(slice_: str, file: Path) -> list[dict[str, object]]:
    for _ in range(TRIES):
        pid = main_pid()
        leave(slice_, file)
        deadline = time.monotonic() + TRY_SEC
        while time.monotonic() < deadline:
            if entries(slice_):
                stop(pid)
                found = entries(slice_)
                if found and all(is_raised(entry) for entry in found):
                    return found
                os.kill(pid, signal.SIGCONT)
            time.sleep(0.0002)
    raise SystemExit("no window was caught")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--slice", required=True)
    parser.add_argument("--file", type=Path, required=True)
    given = parser.parse_args()
    try:
        for line in sys.stdin:
            if line.strip() == "hold":
                print(json.dumps(hold(given.slice, given.file)), flush=True)
            else:
                subprocess.run(["systemctl", "kill", "--signal=CONT", UNIT], check=True)
                print(json.dumps([]), flush=True)
    finally:
        subprocess.run(["systemctl", "kill", "--signal=CONT", UNIT], check=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
