"""A write that a timer interrupts: it ends in time, and leaves nothing of itself behind."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from logindguard.kernel.interrupt import SIGNAL, Interrupter


@pytest.fixture
def interrupter() -> Interrupter:
    return Interrupter()


@pytest.fixture
def worker() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.fixture
def full_pipe() -> Iterator[int]:
    """The write end of a pipe that nobody reads: a write to it blocks for ever."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    while True:
        try:
            os.write(writing, bytes(4096))
        except BlockingIOError:
            break
    os.set_blocking(writing, True)
    yield writing
    os.close(reading)
    os.close(writing)


def timers() -> str:
    """The POSIX timers that this process has (CONFIG_CHECKPOINT_RESTORE, which Debian sets)."""
    return Path("/proc/self/timers").read_text()


def test_a_write_that_blocks_is_interrupted(
    interrupter: Interrupter, worker: ThreadPoolExecutor, full_pipe: int
) -> None:
    for _ in range(20):
        began = time.monotonic()
        assert worker.submit(interrupter.write, full_pipe, b"0", 10_000).result() is False
        assert time.monotonic() - began >= 0.01
    assert timers() == ""


def test_a_timer_that_expires_before_the_write_begins(
    interrupter: Interrupter, worker: ThreadPoolExecutor, full_pipe: int
) -> None:
    """After a microsecond: the first signal comes while the write is being prepared."""
    for _ in range(50):
        assert worker.submit(interrupter.write, full_pipe, b"0", 1).result() is False
    assert timers() == ""


def test_a_write_that_ends_by_itself(interrupter: Interrupter, worker: ThreadPoolExecutor) -> None:
    reading, writing = os.pipe()
    assert worker.submit(interrupter.write, writing, b"done", 10_000_000).result() is True
    assert os.read(reading, 10) == b"done"
    assert timers() == ""
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        worker.submit(interrupter.write, writing, b"0", 10_000).result()
    os.close(writing)
    assert timers() == ""


def test_a_thread_that_has_the_signal_blocked(
    interrupter: Interrupter, worker: ThreadPoolExecutor, full_pipe: int
) -> None:
    """Threads inherit the mask of who made them."""
    worker.submit(signal.pthread_sigmask, signal.SIG_BLOCK, {SIGNAL}).result()
    assert worker.submit(interrupter.write, full_pipe, b"0", 10_000).result() is False
    assert SIGNAL in worker.submit(signal.pthread_sigmask, signal.SIG_BLOCK, set()).result()


async def test_the_event_loop_goes_on(
    interrupter: Interrupter, worker: ThreadPoolExecutor, full_pipe: int
) -> None:
    """asyncio's wakeup fd gets a byte for each signal, for which it has no handler of its own."""
    loop = asyncio.get_running_loop()
    heard = 0

    def hear() -> None:
        nonlocal heard
        heard += 1

    loop.add_signal_handler(signal.SIGUSR1, hear)
    try:
        for _ in range(20):
            assert await loop.run_in_executor(worker, interrupter.write, full_pipe, b"0", 1_000) is False
        os.kill(os.getpid(), signal.SIGUSR1)
        async with asyncio.timeout(10):
            while not heard:  # noqa: ASYNC110  # the handler sets no event
                await asyncio.sleep(0.005)
    finally:
        loop.remove_signal_handler(signal.SIGUSR1)
    assert timers() == ""


def test_no_room_for_a_timer(interrupter: Interrupter, worker: ThreadPoolExecutor, full_pipe: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_SIGPENDING)
    resource.setrlimit(resource.RLIMIT_SIGPENDING, (0, hard))
    try:
        with pytest.raises(OSError, match="timer_create: Resource temporarily unavailable") as caught:
            worker.submit(interrupter.write, full_pipe, b"0", 10_000).result()
        assert caught.value.errno == errno.EAGAIN
    finally:
        resource.setrlimit(resource.RLIMIT_SIGPENDING, (soft, hard))


def test_memory_that_is_never_written_and_executed() -> None:
    """As MemoryDenyWriteExecute= has it, from the start of the process on (PR_SET_MDWE, 6.3)."""
    inside = (
        "import os, threading; from logindguard.kernel.interrupt import Interrupter;"
        " reading, writing = os.pipe(); os.set_blocking(writing, False); os.write(writing, bytes(1 << 16));"
        " os.set_blocking(writing, True); assert not Interrupter().write(writing, b'0', 10_000)"
    )
    outside = (
        "import ctypes, os, sys; assert ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) == 0;"
        f" os.execv(sys.executable, [sys.executable, '-c', {inside!r}])"
    )
    run = subprocess.run(
        [sys.executable, "-c", outside],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")


def test_a_signal_that_somebody_else_handles() -> None:
    before = signal.signal(SIGNAL, lambda number, frame: None)
    try:
        with pytest.raises(RuntimeError, match=f"Signal {SIGNAL} is in use"):
            Interrupter()
    finally:
        signal.signal(SIGNAL, before)


def test_only_the_main_thread_can_handle_it(worker: ThreadPoolExecutor) -> None:
    assert threading.current_thread() is threading.main_thread()
    with pytest.raises(RuntimeError, match="only by the main thread"):
        worker.submit(Interrupter).result()
