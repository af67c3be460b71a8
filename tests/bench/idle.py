"""A host with many live cgroups and nothing dying: what a pass of the sweep costs then."""

from __future__ import annotations

import os
import statistics
import time

from tests.bench.drive import Bench
from tests.bench.meter import YARDSTICK, Meter, yardstick_usec
from tests.bench.result import Bar, Result, Side, load
from tests.bench.rivals import Guarded
from tests.demo.host import CannotRun

LIVE = 2_000
INTERVAL_SEC = 10  # the shortest
PASSES = 5
GUARD = Guarded(settings=f"sweep: {{interval: {INTERVAL_SEC}s}}\n")


def run(bench: Bench) -> Result:
    if bench.host.version == 1:
        raise CannotRun("cgroup v1 counts the dying of the whole machine: this bench is for cgroup v2.")
    before, live = load(), bench.count(LIVE)
    passes = bench.count(PASSES, least=2)
    with bench.field(GUARD) as on:
        for number in range(live):
            (on.parent / f"live-{number}").mkdir()
        with GUARD.at_work(on) as work:
            bench.progress.now(f"{passes} passes, one every {INTERVAL_SEC} s")
            with Meter(work.pid) as meter:
                time.sleep((passes - 0.5) * INTERVAL_SEC)
    cpu = [each for each, _ in work.passes[1:]]  # the first one comes with the start
    files = [each for _, each in work.passes[1:]]
    here_usec = yardstick_usec()
    slower = max(1.0, here_usec / float(os.environ.get(YARDSTICK, here_usec)))
    native_usec = statistics.median(cpu) / slower
    side = Side(
        rival=GUARD.name,
        figures={
            "passes": len(cpu),
            "pass_cpu_median_usec": round(statistics.median(cpu)),
            "pass_cpu_longest_usec": max(cpu),
            "slower_than_native": round(slower, 1),
            "pass_cpu_native_usec": round(native_usec),
            "files_read_in_a_pass": max(files),
            "cpu_msec": meter.total_usec // 1000,
        },
    )
    bars = [
        Bar(
            wanted="a pass takes under 1 ms of native CPU",
            found=f"{native_usec / 1000:.2f} ms (median; {statistics.median(cpu) / 1000:.2f} ms on a CPU that"
            f" does the same work {slower:.1f} times slower)",
            met=native_usec < 1000,
        ),
        Bar(wanted="a pass reads one file", found=f"{max(files)}", met=max(files) == 1),
    ]
    return Result(
        bench="idle",
        about=f"{live} live cgroups and nothing dying: passes of the sweep, one every {INTERVAL_SEC} s",
        size={"live": live},
        sides=[side],
        bars=bars,
        load_before=before,
    )
