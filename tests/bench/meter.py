"""What a process and the whole machine pay: CPU time from /proc, the most of it in any second."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

CLK_TCK = os.sysconf("SC_CLK_TCK")
SAMPLE_SEC = 0.02
YARDSTICK = "LOGINDGUARD_YARDSTICK_USEC"  # in the environment: what it was outside of this machine
BOUNDS_USEC = (64, 256, 1_000, 4_000, 16_000, 64_000, 256_000, 1_000_000)


class Meter:
    """CPU time of a process while a block runs: the most in any second of it, by thread and in all."""

    def __init__(self, pid: int) -> None:
        self._tasks = Path(f"/proc/{pid}/task")
        self._main = str(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.workers_usec = 0  # all threads but the event loop's
        self.process_usec = 0
        self.total_usec = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _read(self) -> tuple[int, int]:
        """What its threads used since they began: the event loop's, all others'; microseconds."""
        used = {
            task.name: int((task / "schedstat").read_text().split()[0]) // 1000
            for task in self._tasks.iterdir()
        }
        return used.pop(self._main), sum(used.values())

    def _run(self) -> None:
        second: deque[tuple[float, int, int]] = deque()
        first: int | None = None
        while not self._over.wait(SAMPLE_SEC):
            try:
                loop_usec, workers_usec = self._read()
            except (OSError, KeyError, IndexError):  # a thread, or all of it, has just ended
                continue
            now = time.monotonic()
            second.append((now, loop_usec, workers_usec))
            while now - second[0][0] > 1:
                second.popleft()
            self.workers_usec = max(self.workers_usec, workers_usec - second[0][2])
            self.process_usec = max(self.process_usec, loop_usec + workers_usec - sum(second[0][1:]))
            first = loop_usec + workers_usec if first is None else first
            self.total_usec = loop_usec + workers_usec - first


def yardstick_usec() -> float:
    """CPU time of a piece of work such as the guard does: small files are read and taken apart.

    The least of some: how much slower an emulated CPU is, and not what else it had to do.
    """
    file = Path("/proc/self/status")

    def once() -> int:
        began = time.thread_time_ns()
        for _ in range(50):
            dict(line.split(":", 1) for line in file.read_text().splitlines())
        return time.thread_time_ns() - began

    return min(once() for _ in range(20)) / 1000


def system_usec(proc: Path = Path("/proc")) -> int:
    """System time of all CPUs since boot, interrupts included: kworkers free what a reclaim released."""
    line = (proc / "stat").read_text().split("\n", 1)[0].split()
    _, _, system, _, _, irq, softirq = map(int, line[1:8])
    return (system + irq + softirq) * 1_000_000 // CLK_TCK


def rss_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


@dataclass(frozen=True, slots=True)
class Call:
    """One reclaim call: how long it took, and what of that its thread ran."""

    wall_usec: int
    cpu_usec: int


def histogram(values_usec: Iterable[int]) -> dict[str, int]:
    """How many took up to each bound, in microseconds; what is empty at either end is left out."""
    labels = [f"<= {bound}" for bound in BOUNDS_USEC] + [f"> {BOUNDS_USEC[-1]}"]
    counts = [0] * len(labels)
    for value in values_usec:
        counts[sum(value > bound for bound in BOUNDS_USEC)] += 1
    used = [index for index, count in enumerate(counts) if count]
    if not used:
        return {}
    return dict(zip(labels[used[0] : used[-1] + 1], counts[used[0] : used[-1] + 1], strict=True))


def nth_percent(values: list[float], percent: float) -> float:
    """The smallest value that so many of them are not above."""
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * percent // 100) - 1)]
