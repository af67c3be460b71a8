"""The daemon as a process on cgroup v1, confined to a cgroup of ours: what it may, costs and tells there."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from logindguard.kernel.cgroupfs import Hierarchy, detect
from logindguard.kernel.v1_stat import read_stat
from tests.bench.meter import Meter
from tests.conftest import Tell
from tests.lab.leak import PAGE_BYTES, dying, leaked
from tests.lab.neighbour import neighbour
from tests.native.conftest import launcher, root, short_dir
from tests.native.launcher import Launcher

__all__ = ["launcher", "root", "short_dir"]  # fixtures

MIB = 1 << 20
MANY = 100_000
SHARE_USEC = 20_000  # in any second: sweep.cpu_percent as it comes
# Others' cgroups on this machine come and go meanwhile, and v1 counts all of them together.
OTHERS = 50
NO_BUS = ("--bus-address", "unix:path=/nonexistent/bus", "--json")


@pytest.fixture
def directory(root: str) -> Path:
    hierarchy = detect()
    assert hierarchy is not None
    return hierarchy.mount / root.strip("/")


@pytest.fixture
def work_dir() -> Iterator[Path]:
    path = Path("/var/tmp/lgtest-daemon")
    path.mkdir()
    yield path
    shutil.rmtree(path)


def settled(cgroup: Path) -> int:
    """Dying memcgs of the machine, once those of other tests have gone."""
    deadline = time.monotonic() + 30
    count = dying(cgroup)
    while time.monotonic() < deadline:
        time.sleep(1)
        last, count = count, dying(cgroup)
        if abs(count - last) <= 2:
            break
    return count


def cache_bytes(cgroup: Path) -> int:
    """Of the whole subtree, in which nobody lives: of the dying."""
    with Hierarchy(1, cgroup).open("/") as opened:
        return read_stat(opened).total.cache


@pytest.mark.timeout(360)
def test_a_hundred_thousand_within_the_default_share(
    launcher: Launcher, directory: Path, work_dir: Path, tell: Tell
) -> None:
    parent = directory / "p"
    before = settled(directory)
    launcher.config.write_text(launcher.config.read_text() + "reclaim: {shared: yes}\nsweep: {grace: 0}\n")
    with leaked(
        root=directory, parent=parent, work_dir=work_dir / "leak", count=MANY, bytes_each=PAGE_BYTES
    ) as made:
        assert made.dying_after > MANY // 2  # where DAMON reclaims by itself, some are gone already
        started = time.monotonic()
        run = launcher.start(*NO_BUS)
        run.wait_told("READY=1")
        assert run.wait_entry(LOGINDGUARD_MODE="shared")
        time.sleep(1)  # what starting costs is not the sweep's
        with Meter(run.process.pid) as meter:
            while held := cache_bytes(parent):
                assert time.monotonic() - started < 180, f"{held} bytes are held still"
                time.sleep(0.2)
            took_sec = time.monotonic() - started
            while (left := dying(parent)) > before + OTHERS:
                assert time.monotonic() - started < 210, f"{left} are left, {before} were there before"
                time.sleep(0.2)
            run.wait_entry(LOGINDGUARD_OUTCOME="released")
        records = [entry for entry in run.entries if "LOGINDGUARD_FREED_BYTES" in entry]
        assert run.end()[0] == 0
    paused = sum("The sweep is paused" in entry["MESSAGE"] for entry in run.entries)
    freed_bytes = sum(int(entry["LOGINDGUARD_FREED_BYTES"]) for entry in records)
    longest_usec = max(int(entry["LOGINDGUARD_LONGEST_WRITE_USEC"]) for entry in records)
    writes = sum(int(entry["LOGINDGUARD_WRITES"]) for entry in records)
    tell(
        f"dying memcgs of the machine {before} -> {made.dying_after} -> {left} in {took_sec:.1f} s:"
        f" {freed_bytes >> 20} MiB in {writes} slices, {len(records)} records, the longest"
        f" slice {longest_usec / 1000:.1f} ms; CPU {meter.total_usec / 1000:.0f} ms, in any second at most"
        f" {meter.workers_usec / 1000:.1f} ms of the workers and {meter.process_usec / 1000:.1f} ms of all;"
        f" paused {paused} times by pressure"
    )
    assert freed_bytes >= MANY * PAGE_BYTES // 4
    # Only what the kernel makes of the last slice is not in its hand, and is rested off afterwards.
    assert meter.workers_usec <= SHARE_USEC + longest_usec


def test_by_default_nothing_is_reclaimed_and_all_are_counted(
    launcher: Launcher, directory: Path, work_dir: Path
) -> None:
    parent = directory / "p"
    parent.mkdir()
    live = parent / "n"
    live.mkdir()
    launcher.config.write_text(
        launcher.config.read_text() + "sweep: {interval: 10s, grace: 0}\nlog_level: debug\n"
    )
    with (
        neighbour(work_dir=work_dir / "n", size=10 * MIB, cgroup=live),
        leaked(
            root=directory, parent=parent, work_dir=work_dir / "leak", count=300, bytes_each=16 * PAGE_BYTES
        ),
    ):
        time.sleep(2.5)  # memory.stat is flushed every two seconds
        run = launcher.start(*NO_BUS)
        run.wait_said("reclaim.shared is off")
        [said] = [line for line in run.said if "reclaim.shared is off" in line][:1]
        counted = int(said.split(": ")[-2].split()[0])
        assert abs(counted - dying(parent)) <= OTHERS
        assert run.end()[0] == 0
        assert not any(int(entry.get("LOGINDGUARD_WRITES", 0)) for entry in run.entries)
    live.rmdir()
    parent.rmdir()
