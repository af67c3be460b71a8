"""One rival's turn: it works until all is released or nothing moves, and all is measured meanwhile."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from logindguard.kernel.pressure import some_percent
from tests.bench.meter import Meter, histogram, nth_percent, system_usec
from tests.bench.result import Side, Value
from tests.bench.rivals import Field, Rival, Work
from tests.demo.host import Host, remove
from tests.demo.progress import Progress
from tests.lab.leak import dying

POLL_SEC = 0.2
LOOK_SEC = 5.0  # between two readings of a memory.stat that may be a dear one
OTHERS_SEC = 3.0
IDLE_SEC = 1.0
CALM_SEC = 60.0  # at most, until what was prepared no longer counts as pressure
CALM_PERCENT = 5.0
SETTLE_SEC = 30.0  # until what ended before is gone, or others make it look as if it were not
STILL_SEC = 60.0  # pressure may pause the guard for long


@dataclass(slots=True, kw_only=True)
class Bench:
    """What every bench is given. `scale` is 1 for what its bars are about."""

    host: Host
    progress: Progress
    scale: float = 1.0
    ours_alone: bool = False  # the whole machine, so that its caches may be dropped
    sides: int = 0

    def count(self, full: int, *, least: int = 1) -> int:
        return max(least, round(full * self.scale))

    @contextmanager
    def field(self, rival: Rival) -> Iterator[Field]:
        """A parent and a directory of its own for each side, both removed after it."""
        self.sides += 1
        name = f"side-{self.sides}"
        place = self.host.work_dir / name
        place.mkdir()
        self.progress.now(f"{rival.name}: it is prepared")
        parent = self.host.parent(name)
        yield Field(host=self.host, parent=parent, place=place)
        shutil.rmtree(place)  # after a failure all goes
        remove(parent)


@dataclass(slots=True, kw_only=True)
class Turn:
    """What was measured from the start of a rival's work to its end."""

    dying_before: int
    dying_after: int = 0
    wall_sec: float = 0.0
    span_nsec: tuple[int, int] = (0, 0)  # from its start to its end, CLOCK_MONOTONIC
    system_usec: int = 0
    pressure_percent: float = 0.0  # before it began
    idle_percent: float = 0.0  # system time of the machine before it began
    cpu_usec: int = 0
    most_usec: int = 0  # of the workers, or of a rival that has none, in any second
    work: Work = field(default_factory=Work)

    def side(self, rival: Rival, **further: Value) -> Side:
        calls = self.work.calls
        figures: dict[str, Value] = {
            "dying_before": self.dying_before,
            "dying_after": self.dying_after,
            "wall_sec": round(self.wall_sec, 1),
            "cpu_msec": round(self.cpu_usec / 1000, 1),
            "most_cpu_in_a_second_msec": round(self.most_usec / 1000, 1),
            "system_of_host_msec": self.system_usec // 1000,
            "system_of_host_before_percent": round(self.idle_percent, 1),
            "pressure_before_percent": self.pressure_percent,
            "calls": len(calls),
            "pauses": self.work.pauses,
        }
        if calls:
            figures |= {
                "call_median_usec": round(nth_percent([each.cpu_usec for each in calls], 50)),
                "longest_call_msec": max(each.wall_usec for each in calls) / 1000,
            }
        if self.work.shields_usec:
            figures["longest_shield_msec"] = max(self.work.shields_usec) / 1000
        return Side(
            rival=rival.name, figures=figures | further, calls=histogram(each.cpu_usec for each in calls)
        )


def idle_percent() -> float:
    before, started = system_usec(), time.monotonic()
    time.sleep(IDLE_SEC)
    return (system_usec() - before) / (time.monotonic() - started) / 10_000


def calm(progress: Progress) -> float:
    """Wait until the machine's CPUs and disks have room; percent of pressure that is left."""
    deadline = time.monotonic() + CALM_SEC
    while True:
        percent = max(some_percent(resource) or 0.0 for resource in ("cpu", "io", "memory"))
        if percent <= CALM_PERCENT or time.monotonic() > deadline:
            return percent
        progress.now(f"waiting for the machine to be calm ({percent:.0f} % pressure)")
        time.sleep(POLL_SEC)


def nothing() -> int:
    return 0


def take_turn(
    bench: Bench,
    on: Field,
    rival: Rival,
    *,
    floor: int,
    held: Callable[[], int] = nothing,
    still_sec: float | None = None,
    most_sec: float = 600.0,
) -> Turn:
    """Until no more than `floor` are dying and `held` says 0, or none went for `still_sec` (STILL_SEC)."""
    still_sec = STILL_SEC if still_sec is None else still_sec
    pressure_percent = calm(bench.progress)
    turn = Turn(dying_before=dying(on.parent), pressure_percent=pressure_percent, idle_percent=idle_percent())
    with rival.at_work(on) as work:
        turn.work = work
        system, started, started_nsec = system_usec(), time.monotonic(), time.monotonic_ns()
        shown = looked = moved = started
        low = count = turn.dying_before
        holds = True
        meter = Meter(work.pid) if work.pid else None
        with meter or nullcontext():
            while True:
                now = time.monotonic()
                count = dying(on.parent)
                if count < low:
                    low, moved = count, now
                still = now - moved > OTHERS_SEC
                if count <= floor or (still and now - looked > LOOK_SEC):
                    looked = now
                    holds = held() > 0
                # Where others' dying memcgs are counted too, theirs may be more than they were.
                over = not holds and (count <= floor or (still and held is not nothing))
                if over or now - moved > still_sec or now - started > most_sec:
                    break
                if now - shown > 1:
                    shown = now
                    bench.progress.now(f"{rival.name}: {count} dying after {now - started:.0f} s")
                time.sleep(POLL_SEC)
        turn.span_nsec = started_nsec, time.monotonic_ns()
        # Nothing came of the last wait.
        turn.wall_sec = (moved if count > floor else now) - started
        turn.system_usec = system_usec() - system
        turn.dying_after = count
        if meter is not None:
            turn.cpu_usec = meter.total_usec
            turn.most_usec = meter.workers_usec or meter.process_usec
    if work.cpu_usec is not None:
        turn.cpu_usec = work.cpu_usec
    bench.progress.step(
        f"{rival.name}: {turn.dying_before} dying, {turn.dying_after} after {turn.wall_sec:.1f} s,"
        f" CPU {turn.cpu_usec / 1000:.0f} ms, system time of the machine {turn.system_usec / 1000:.0f} ms"
    )
    for sentence in work.sentences[:1]:
        bench.progress.step(f"logindguard: {sentence}")
    return turn


def settled(cgroup: Path) -> int:
    """Dying memcgs once those of what went before have gone; on v1 of the whole machine."""
    deadline = time.monotonic() + SETTLE_SEC
    count = dying(cgroup)
    while time.monotonic() < deadline:
        time.sleep(1)
        last, count = count, dying(cgroup)
        if abs(count - last) <= 2:
            break
    return count
