#!/usr/bin/python3
"""SIGKILLs the daemon inside shielded windows, restores, and looks at every memory.min.

    kill_in_window.py --cycles N [--seed N]

Needs cgroup v2 and the installed package. Each cycle starts the real daemon on a subtree of its
own, with dying memcgs and live siblings whose memory.min is 0, 64M, "max" or left alone, kills it
when the ledger says that a window is open, after a random moment, and runs `--restore` as
ExecStopPost= would. Prints one JSON line: how many cycles, how many kills the ledger proves to
have hit a window, and what was wrong afterwards.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.lab.leak import leaked

DAEMON = "/usr/libexec/logindguardd"
MOUNT = Path("/sys/fs/cgroup")
TOP = MOUNT / "lgkill"
RUN = Path("/run/lgkill")
WORK = Path("/var/tmp/lgkill")
SIBLINGS = 24
OWN_VALUES = ("0", "0", str(64 << 20), "max")
CONFIG = """
roots: [/lgkill]
sweep:
  cpu_percent: 100
  interval: 10s
  retry_first: 1s
"""
DYING = 2_000
DEADLINE_SEC = 30


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cycles", type=int, default=50)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    chance = random.Random(given.seed)  # moments, not secrets
    proved = 0
    wrong: list[str] = []
    residue = contextlib.ExitStack()
    _prepare(chance)
    try:
        before = _values()
        for cycle in range(given.cycles):
            if _dying() < DYING // 4:
                residue.close()
                residue.enter_context(
                    leaked(
                        root=TOP, parent=TOP / "p", work_dir=WORK / "leak", count=DYING, bytes_each=32 << 10
                    )
                )
            proved += _cycle(chance)
            after = _values()
            wrong += [
                f"cycle {cycle}: {name} {before[name]} -> {after[name]}"
                for name in before
                if after[name] != before[name]
            ]
            if (RUN / "ledger").exists():
                wrong.append(f"cycle {cycle}: the ledger is not empty")
    finally:
        residue.close()
        _clean()
    print(json.dumps({"seed": given.seed, "cycles": given.cycles, "proved": proved, "wrong": wrong}))
    return 1 if wrong else 0


def _prepare(chance: random.Random) -> None:
    _clean()
    for directory in (RUN, WORK, TOP, TOP / "p"):
        directory.mkdir()
    for directory in (TOP, TOP / "p"):
        (directory / "cgroup.subtree_control").write_text("+memory")
    for number in range(SIBLINGS):
        sibling = TOP / "p" / f"sibling-{number}"
        sibling.mkdir()
        (sibling / "memory.min").write_text(chance.choice(OWN_VALUES))
    RUN.chmod(0o700)
    (WORK / "config.yaml").write_text(CONFIG)


def _clean() -> None:
    if TOP.exists():
        for directory in sorted(TOP.rglob("*"), reverse=True):
            if directory.is_dir():
                directory.rmdir()
        TOP.rmdir()
    for directory in (RUN, WORK):
        if directory.exists():
            shutil.rmtree(directory)


def _values() -> dict[str, str]:
    return {path.parent.name: path.read_text().strip() for path in sorted(TOP.glob("p/*/memory.min"))}


def _cycle(chance: random.Random) -> bool:
    """One start, kill and restore; whether the kill left entries in the ledger."""
    daemon = [DAEMON, "--config", str(WORK / "config.yaml"), "--runtime-directory", str(RUN)]
    with subprocess.Popen(daemon, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + DEADLINE_SEC
            while not (RUN / "ledger").exists():
                if process.poll() is not None:
                    _, errors = process.communicate()
                    raise RuntimeError(f"the daemon ended with status {process.returncode}: {errors}")
                if time.monotonic() > deadline:
                    return False
            time.sleep(chance.choice((0.0, 0.0, 0.001, 0.005, 0.02)) * chance.random())
        finally:
            process.send_signal(signal.SIGKILL)
    proved = (RUN / "ledger").exists()
    restore = [DAEMON, "--restore", "--runtime-directory", str(RUN)]
    subprocess.run(restore, check=True, stderr=subprocess.DEVNULL, timeout=DEADLINE_SEC)
    return proved


def _dying() -> int:
    lines = (TOP / "p" / "cgroup.stat").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("nr_dying_descendants "))


if __name__ == "__main__":
    sys.exit(main())
