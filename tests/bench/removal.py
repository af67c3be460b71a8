"""A parent is removed while it is reclaimed: how long that waits, and unrelated cgroups with it.

Whoever releases memcgs, the kernel frees each of them with cgroup_mutex held (css_release_work_fn), so a
mkdir elsewhere waits for that now and then. What that comes to is told by a side where one unpaced write
releases them; how much two runs differ by themselves, by a second one without the guard.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from tests.bench.drive import Bench
from tests.bench.meter import histogram, nth_percent
from tests.bench.result import Bar, Result, Side, load
from tests.bench.rivals import AT_ONCE, NO_GUARD, Guarded, Rival
from tests.lab.leak import leaked

ROUNDS = 40
COUNT = 500  # dying memcgs below each parent
PROBE_SEC = 0.005
WITHIN_SEC = 1.0  # from the last teardown to the rmdir
SETTLE_SEC = 0.3  # the guard begins then
AFTER_SEC = 0.3
MOST_MSEC = 20
# As a parent that may be removed, and with teardowns of everything below it cared for.
GUARD = Guarded(settings=AT_ONCE + 'units: {include: ["*"]}\n', permanent=False)


class Unrelated:
    """Makes and removes a cgroup elsewhere all the time; how long each took, and when."""

    def __init__(self, cgroup: Path) -> None:
        self._cgroup = cgroup
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.took: list[tuple[int, float]] = []  # when, ns; ms

    @contextmanager
    def at_work(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(PROBE_SEC):
            for change in (self._cgroup.mkdir, self._cgroup.rmdir):
                self.took.append((time.monotonic_ns(), timed_msec(change)))

    def between(self, spans: list[tuple[int, int]]) -> list[float]:
        return [took for when, took in self.took if any(first <= when <= last for first, last in spans)]


def timed_msec(change: Callable[[], None]) -> float:
    began = time.monotonic()
    change()
    return (time.monotonic() - began) * 1000


def run(bench: Bench) -> Result:
    before = load()
    rounds, count = bench.count(ROUNDS, least=3), bench.count(COUNT, least=100)
    sides = {
        side.rival: side
        for side in (
            one(bench, NO_GUARD, rounds, count),
            one(bench, replace(NO_GUARD, name="no guard, again"), rounds, count),
            one(bench, replace(NO_GUARD, name="one unpaced write"), rounds, count, release=unpaced_write),
            one(bench, GUARD, rounds, count),
        )
    }
    quiet, guarded = (
        _number(sides[name].figures["unrelated_p99_msec"]) for name in (NO_GUARD.name, GUARD.name)
    )
    longest = _number(sides[GUARD.name].figures["unrelated_longest_msec"])
    return Result(
        bench="removal",
        about=f"{rounds} parents with {count} dying memcgs each, removed up to {WITHIN_SEC:g} s after the"
        f" last of these while a mkdir and a rmdir elsewhere come every {PROBE_SEC * 1000:g} ms",
        size={"rounds": rounds, "count": count},
        sides=list(sides.values()),
        bars=[
            Bar(
                wanted="unrelated mkdir and rmdir: p99 at most 1.2 x of that without the guard",
                found=f"{guarded:.2f} to {quiet:.2f} ms, {guarded / max(quiet, 0.001):.2f} x",
                met=guarded <= 1.2 * quiet,
            ),
            Bar(
                wanted=f"unrelated mkdir and rmdir: the longest under {MOST_MSEC} ms (not where emulated)",
                found=f"{longest:.1f} ms, {sides[NO_GUARD.name].figures['unrelated_longest_msec']} without",
                met=longest < MOST_MSEC,
            ),
        ],
        load_before=before,
    )


def unpaced_write(parent: Path) -> None:
    """Of all that hangs dying below `parent`."""
    with suppress(OSError):  # EAGAIN: less than asked for was there
        for name, value in (("memory.force_empty", "0"), ("memory.reclaim", "1G")):
            if (file := parent / name).exists():
                file.write_text(value)


def one(
    bench: Bench,
    rival: Rival,
    rounds: int,
    count: int,
    *,
    release: Callable[[Path], None] = lambda parent: None,
) -> Side:
    chance = random.Random(1)  # the same each time
    removals: list[float] = []
    spans: list[tuple[int, int]] = []
    with bench.field(rival) as on:
        unrelated = Unrelated(bench.host.root / f"elsewhere-{bench.sides}")
        with rival.at_work(on) as work, unrelated.at_work():
            for number in range(rounds):
                bench.progress.now(f"{rival.name}: parent {number + 1} of {rounds}")
                parent = on.parent / f"p-{number}"
                parent.mkdir()
                leak = on.place / f"leak-{number}"
                with leaked(root=on.parent, parent=parent, work_dir=leak, count=count):
                    began = time.monotonic_ns()
                    until_rmdir_sec = chance.uniform(0, WITHIN_SEC)
                    if until_rmdir_sec > SETTLE_SEC:
                        time.sleep(SETTLE_SEC)
                        release(parent)
                    time.sleep(max(0, until_rmdir_sec - (time.monotonic_ns() - began) / 1e9))
                    removals.append(timed_msec(parent.rmdir))
                    time.sleep(AFTER_SEC)
                    spans.append((began, time.monotonic_ns()))
        took = unrelated.between(spans)
        bench.progress.step(
            f"{rival.name}: unrelated p99 {nth_percent(took, 99):.2f} ms, longest {max(took):.1f} ms;"
            f" the removal itself {max(removals):.1f} ms at most"
        )
        return Side(
            rival=rival.name,
            figures={
                "unrelated_changes": len(took),
                "unrelated_median_msec": round(nth_percent(took, 50), 2),
                "unrelated_p99_msec": round(nth_percent(took, 99), 2),
                "unrelated_longest_msec": round(max(took), 2),
                "removal_median_msec": round(nth_percent(removals, 50), 2),
                "removal_longest_msec": round(max(removals), 2),
                "calls": len(work.calls),
                "longest_call_msec": max((each.wall_usec for each in work.calls), default=0) / 1000,
            },
            calls=histogram(each.cpu_usec for each in work.calls),
        )


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return value
