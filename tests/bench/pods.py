"""Pods that are replaced all the time below a limit, as on a host of containers."""

from __future__ import annotations

import time
from collections import deque
from contextlib import ExitStack
from pathlib import Path

from tests.bench.drive import Bench
from tests.bench.live import stat_of
from tests.bench.meter import Meter, histogram, system_usec
from tests.bench.result import Bar, Result, Side, Value, load
from tests.bench.rivals import NO_GUARD, Guarded, Rival
from tests.demo.host import CannotRun
from tests.lab.leak import dying, own_cgroup
from tests.lab.visitor import Visitor, visitor

PODS, CONTAINERS = 100, 3
A_SECOND = 10
LASTS_SEC = 300
BYTES_EACH = 128 << 10  # of page cache, for each container
LIMIT_BYTES = 512 << 20
POD_LIMIT_BYTES = 8 << 20
# What they write keeps their inodes dirty, which pin a memcg until the kernel has written them: 30 s until
# they expire, 5 s until the flusher comes by, and 10 s until the next sweep.
BOUND_SEC = 45
AFTER_SEC = 5.0
RIVALS: tuple[Rival, ...] = (
    NO_GUARD,
    Guarded(
        name="the guard, units: *", settings='units: {include: ["*"]}\nsweep: {grace: 0}\n', permanent=False
    ),
    Guarded(
        name="the guard, sweep every 10 s", settings="sweep: {grace: 0, interval: 10s}\n", permanent=False
    ),
    # 2 % of an emulated CPU are a fraction of that of a real one.
    Guarded(
        name="the guard, sweep every 10 s, cap 20 %",
        settings="sweep: {grace: 0, interval: 10s, cpu_percent: 20}\n",
        permanent=False,
    ),
)


def run(bench: Bench) -> Result:
    if bench.host.version == 1:
        raise CannotRun("On cgroup v1 nothing can be shielded: this bench is for cgroup v2.")
    before = load()
    pods, lasts_sec = bench.count(PODS, least=10), max(10.0, LASTS_SEC * bench.scale)
    sides = {rival.name: one(bench, rival, pods, lasts_sec) for rival in RIVALS}
    bars = []
    for name, side in sides.items():
        if name == NO_GUARD.name:
            continue
        figures = side.figures
        bars += [
            Bar(
                wanted=f"{name}: dying memcgs stay bounded, by those of {BOUND_SEC} s",
                found=f"{figures['most_dying']} at most, of {figures['removed_in_45_sec']} in {BOUND_SEC} s;"
                f" {sides[NO_GUARD.name].figures['most_dying']} without",
                met=_number(figures["most_dying"]) <= _number(figures["removed_in_45_sec"]),
            ),
            Bar(
                wanted=f"{name}: no page of a live pod taken",
                found=f"{figures['pages_taken_from_live']} pages,"
                f" {sides[NO_GUARD.name].figures['pages_taken_from_live']} without",
                met=figures["pages_taken_from_live"] == 0,
            ),
            Bar(
                wanted=f"{name}: no OOM kill",
                found=f"{figures['oom_kills']}",
                met=figures["oom_kills"] == 0,
            ),
        ]
    return Result(
        bench="pods",
        about=f"{pods} pods of {CONTAINERS} containers with {BYTES_EACH >> 10} KiB of page cache each below a"
        f" memory.max of {LIMIT_BYTES >> 20} MiB, {A_SECOND} replaced a second for {lasts_sec:.0f} s",
        size={"pods": pods, "containers": CONTAINERS, "a_second": A_SECOND, "lasts_sec": lasts_sec},
        sides=list(sides.values()),
        bars=bars,
        load_before=before,
    )


class Pods:
    """The slices and what lives in them."""

    def __init__(self, top: Path, guest: Visitor, place: Path) -> None:
        self._top, self._guest, self._place = top, guest, place
        self._live: deque[Path] = deque()
        self._made = 0
        self.lost_pages = 0  # by those that are gone

    def make(self) -> None:
        pod = self._top / f"kubepods-pod{self._made}.slice"
        self._made += 1
        pod.mkdir()
        (pod / "memory.max").write_text(str(POD_LIMIT_BYTES))
        (pod / "cgroup.subtree_control").write_text("+memory")
        for number in range(CONTAINERS):
            container = pod / f"cri-containerd-{number}.scope"
            container.mkdir()
            self._guest.write(container, self._place / f"{pod.name}-{number}", BYTES_EACH)
        self._live.append(pod)

    def replace(self) -> None:
        """The oldest by a new one. Its files stay: another pod of that image would read them."""
        self.remove()
        self.make()

    def remove(self) -> None:
        pod = self._live.popleft()
        self.lost_pages += stat_of(pod, "pgsteal")
        for container in [each for each in pod.iterdir() if each.is_dir()]:
            container.rmdir()
        pod.rmdir()

    def stolen_pages(self) -> int:
        return self.lost_pages + sum(stat_of(pod, "pgsteal") for pod in self._live)

    def __len__(self) -> int:
        return len(self._live)


def one(bench: Bench, rival: Rival, count: int, lasts_sec: float) -> Side:
    with bench.field(rival) as on, visitor(own_cgroup(on.parent)) as guest:
        (on.parent / "memory.max").write_text(str(LIMIT_BYTES))
        files = on.place / "files"
        files.mkdir()
        pods = Pods(on.parent, guest, files)
        for _ in range(count):
            pods.make()
        with rival.at_work(on) as work, ExitStack() as stack:
            meter = stack.enter_context(Meter(work.pid)) if work.pid else None
            system, started = system_usec(), time.monotonic()
            replaced = most = held = 0
            while (passed := time.monotonic() - started) < lasts_sec:
                if replaced > passed * A_SECOND:
                    time.sleep(0.01)
                    continue
                pods.replace()
                replaced += 1
                if replaced % A_SECOND == 0:
                    most = max(most, dying(on.parent))
                    if replaced % (5 * A_SECOND) == 0:  # a reading of every pod
                        held = max(held, bench.host.held_by_dying_bytes(on.parent))
                    bench.progress.now(f"{rival.name}: {replaced} replaced, at most {most} dying")
            used_usec = system_usec() - system
            time.sleep(AFTER_SEC)
            left = dying(on.parent)
        figures: dict[str, Value] = {
            "replaced": replaced,
            "removed_in_45_sec": round((1 + CONTAINERS) * replaced * BOUND_SEC / lasts_sec),
            "most_dying": most,
            "held_by_dying_most_mib": held >> 20,
            "dying_at_the_end": left,
            "pages_taken_from_live": pods.stolen_pages(),
            "oom_kills": _events(on.parent)["oom_kill"],
            "reached_memory_max": _events(on.parent)["max"],
            "system_of_host_msec": used_usec // 1000,
            "cpu_msec": meter.total_usec // 1000 if meter else 0,
            "most_cpu_in_a_second_msec": round(meter.process_usec / 1000, 1) if meter else 0,
            "records": len(work.records),
            "calls": len(work.calls),
            "longest_call_msec": max((each.wall_usec for each in work.calls), default=0) / 1000,
            "longest_shield_msec": max(work.shields_usec, default=0) / 1000,
        }
        while pods:
            pods.remove()
        bench.progress.step(
            f"{rival.name}: {replaced} replaced, at most {most} dying, {left} in the end,"
            f" {figures['pages_taken_from_live']} pages taken from live ones"
        )
        return Side(rival=rival.name, figures=figures, calls=histogram(each.cpu_usec for each in work.calls))


def _events(cgroup: Path) -> dict[str, int]:
    lines = (cgroup / "memory.events").read_text().splitlines()
    return {name: int(value) for name, value in (line.split() for line in lines)}


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return value
