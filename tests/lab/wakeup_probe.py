#!/usr/bin/python3
"""How late a process is woken that asks to be every millisecond.

    wakeup_probe.py

Prints "ready". A line "FROM TO" (CLOCK_MONOTONIC nanoseconds) ends it, and is answered with one JSON
object: how often it woke up between the two, and its lateness in microseconds. What it missed is not
asked for again. Standard library only: it is copied into machines and run there.
"""

from __future__ import annotations

import gc
import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

PERIOD_NSEC = 1_000_000
LOOK_EVERY = 100  # periods between two looks at the input


def main() -> None:
    woken: list[tuple[int, int]] = []
    print("ready", flush=True)
    gc.disable()
    due = time.monotonic_ns() + PERIOD_NSEC
    while True:
        time.sleep(max(0, due - time.monotonic_ns()) / 1e9)
        now = time.monotonic_ns()
        woken.append((now, now - due))
        due = max(due + PERIOD_NSEC, now + PERIOD_NSEC // 2)
        if len(woken) % LOOK_EVERY == 0 and select.select([sys.stdin], [], [], 0)[0]:
            break
    first, last = map(int, sys.stdin.readline().split())
    late_nsec = sorted(late for now, late in woken if first <= now <= last) or [0]

    def at(percent: float) -> int:
        return late_nsec[min(len(late_nsec) - 1, int(len(late_nsec) * percent / 100))] // 1000

    told = {"times": len(late_nsec), "median": at(50), "p99": at(99), "p999": at(99.9), "longest": at(100)}
    print(json.dumps(told), flush=True)


class Probe:
    """The other end: one running probe."""

    def __init__(self, questions: IO[str], answers: IO[str]) -> None:
        self._questions = questions
        self._answers = answers
        self._answers.readline()

    def late_usec(self, span_nsec: tuple[int, int]) -> dict[str, int]:
        """`times` and percentiles of what was late between two times. Ends the probe."""
        self._questions.write(f"{span_nsec[0]} {span_nsec[1]}\n")
        self._questions.flush()
        told: dict[str, int] = json.loads(self._answers.readline())
        return told


@contextmanager
def wakeups() -> Iterator[Probe]:
    """A probe for the length of a block, in a process of its own."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, __file__], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Probe(process.stdin, process.stdout)
        finally:
            process.kill()


if __name__ == "__main__":
    main()
