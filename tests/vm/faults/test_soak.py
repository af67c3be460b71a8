"""Hours of a host's life: nothing grows, nothing is complained of, no memory.min stays changed."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import Tell
from tests.vm.conftest import on
from tests.vm.faults.conftest import Result
from tests.vm.faults.ground import CGROUP, expected, ground, settles
from tests.vm.faults.soak import POOL, Soak, cron_jobs
from tests.vm.faults.watch import Sample, sample, warnings
from tests.vm.host import MIB, UNIT, Host
from tests.vm.machine import Machine, wait_until
from tests.vm.system import BOOKWORM

pytestmark = on(BOOKWORM)

MINUTES = float(os.environ.get("SOAK_MINUTES", "2"))
SAMPLE_SEC = 5 if MINUTES < 10 else 30
GUARD_PART = 1 / 3  # of the time: the guard is killed and restarted, then its own process is left alone
WARM_SEC = 60  # before its memory counts as settled
SETTLED_SEC = 300  # dirty pages, retries; under emulation
LOOK_SEC = 10  # each look is a login too, which leaves something and keeps a CPU busy
SWEEPS_OFTEN = "sweep:\n  interval: 20s\n  retry_first: 2s\n  cpu_percent: 10\n"
# What is dying at any time waits for writeback: some tens, however many sessions came and went.
MOST_DYING = 250
LEFT_DYING = 12
LEFT = f"""
cd /sys/fs/cgroup; grep -H '^nr_dying_descendants [^0]' *.slice/cgroup.stat *.slice/*/cgroup.stat
systemctl show --property=StatusText --value {UNIT}
journalctl --unit={UNIT} --lines=20 --output=short-monotonic
"""
GREW_KIB = 3 << 10
GREW_FDS = 4  # callers' connections and open windows come and go


@contextmanager
def quick_writeback(machine: Machine) -> Iterator[None]:
    """Dirty pages go to the disk after 5 s instead of 30: the end comes sooner, and is the same."""
    knobs = "cd /proc/sys/vm; echo {} >dirty_expire_centisecs; echo {} >dirty_writeback_centisecs"
    machine.run(knobs.format(500, 100))
    try:
        yield
    finally:
        machine.run(knobs.format(3000, 500))


@pytest.mark.timeout(MINUTES * 60 + 1200)
def test_soak(host: Host, seed: int, result: Result, tell: Tell) -> None:
    machine = host.machine
    host.make_files("pool", POOL, MIB)
    with ground(machine), quick_writeback(machine), host.settings(SWEEPS_OFTEN):
        machine.run("systemctl set-property --runtime lgfault-bare.service MemoryMin=16M")
        own = expected() | {f"{CGROUP}/lgfault-bare.service": str(16 * MIB)}
        host.mark()
        since = time.monotonic()
        samples: list[Sample] = []

        def look() -> None:
            if not samples or time.monotonic() - since >= samples[-1].passed_sec + SAMPLE_SEC:
                taken = sample(machine, since)
                if taken is not None:
                    samples.append(taken)

        soak = Soak(host, random.Random(seed))
        with cron_jobs(host):
            soak.run(since + MINUTES * 60, guard_until=since + MINUTES * 60 * GUARD_PART, look=look)
        passed_sec = time.monotonic() - since
        most_dying = max(each.dying for each in samples)
        told = warnings(machine, "--since", host.since)
        records = host.records()
        shown = samples[:: max(1, len(samples) // 12)]
        result(
            minutes=round(passed_sec / 60, 1),
            did=dict(sorted(soak.done.items())),
            records=len(records),
            stolen_pages=sum(each.stolen_pages for each in records),
            stolen_by=[
                f"{each.way} {each.target}: {each.stolen_pages} of {each.shielded} shielded,"
                f" {each.writes} writes, the longest {each.longest_write_usec // 1000} ms"
                for each in records
                if each.stolen_pages
            ],
            dying_at_most=most_dying,
            rss_mib=" ".join(f"{each.rss_kib / 1024:.1f}" for each in shown),
            fds=" ".join(str(each.fds) for each in shown),
            warnings=told,
        )
        assert told == []
        assert machine.run(f"systemctl is-active {UNIT}").stdout.strip() == "active"
        assert most_dying <= MOST_DYING
        assert sum(each.stolen_pages for each in records) == 0
        _is_flat([each for each in samples if each.pid == samples[-1].pid])
        settles(machine, own)
        try:
            wait_until(
                lambda: _is_released(sample(machine, since)),
                timeout_sec=SETTLED_SEC,
                what="what was left is released",
                every_sec=LOOK_SEC,
            )
        except TimeoutError:
            pytest.fail(machine.run(LEFT, check=False).stdout)
        tell(f"released {time.monotonic() - since - passed_sec:.0f} s after the end")


def _is_released(now: Sample | None) -> bool:
    return now is not None and now.dying <= LEFT_DYING


def _is_flat(of_one_process: list[Sample]) -> None:
    """Nothing is said of one that was too short to have settled."""
    settled = [each for each in of_one_process if each.passed_sec >= of_one_process[0].passed_sec + WARM_SEC]
    if settled:
        first, last = settled[0], settled[-1]
        assert last.rss_kib <= first.rss_kib + GREW_KIB
        assert last.fds <= first.fds + GREW_FDS
        assert last.threads <= first.threads + 2
