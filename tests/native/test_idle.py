"""The sweep's thread becomes idle: by itself where it may, from outside where the sandbox forbids it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from logindguard.kernel.idle import make_this_thread_idle, warn_unless_idle

pytestmark = pytest.mark.native

HELPER = Path(__file__).parents[2] / "units" / "logindguard-idle"
# A process as the sandbox leaves it: its thread has the name, and normal priority.
NAMED = """
import os, sys, threading
def run():
    with open(f"/proc/self/task/{threading.get_native_id()}/comm", "w") as comm:
        comm.write("sweep")
    print(threading.get_native_id(), flush=True)
    sys.stdin.read()
threading.Thread(target=run).start()
"""


def ionice(task: int) -> str:
    return subprocess.run(
        ["ionice", "--pid", str(task)], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    with ThreadPoolExecutor(1, "idle", make_this_thread_idle) as pool:
        task = pool.submit(threading.get_native_id).result()
        assert os.sched_getscheduler(task) == os.SCHED_IDLE
        assert os.sched_getscheduler(0) == os.SCHED_OTHER
        assert ionice(task) == "idle"
        assert Path(f"/proc/self/task/{task}/comm").read_text() == "sweep\n"
        pool.submit(warn_unless_idle).result()
        assert not caplog.records


def test_from_outside() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", NAMED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        task = int(process.stdout.readline())
        assert os.sched_getscheduler(task) == os.SCHED_OTHER
        subprocess.run([HELPER, str(process.pid)], check=True)
        assert os.sched_getscheduler(task) == os.SCHED_IDLE
        assert ionice(task) == "idle"
        assert os.sched_getscheduler(process.pid) == os.SCHED_OTHER
        assert process.stdin is not None
        process.stdin.close()


def test_it_says_so_where_neither_worked(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        warn_unless_idle()
    assert "stays at normal priority" in caplog.text
