"""memory.force_empty as the guard uses it, on the kernel that runs this."""

from __future__ import annotations

import mmap
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from logindguard import policy
from logindguard.config import Config
from logindguard.kernel.cgroupfs import CgroupGone, KernelRefused
from logindguard.kernel.choose import choose
from logindguard.kernel.ledger import Ledger
from logindguard.kernel.observe import ObserveBackend
from logindguard.kernel.v1 import V1Backend
from logindguard.model import Outcome, Reclaim, Skip, Wait, Window
from tests.conftest import Tell
from tests.demo.host import resident_pages
from tests.kernel.v1.conftest import DEFAULTS, MIB, SHARED, Ground
from tests.lab.leak import PAGE_BYTES, Pattern, dying

# Others' cgroups on this machine come and go meanwhile, and v1 counts all of them together.
OTHERS = 50


def plan(*, slice_usec: int = 10_000, window_usec: int = 10_000) -> Reclaim:
    return Reclaim(
        max_bytes=512 * MIB, keep_mapped=False, window_usec=window_usec, write_usec=slice_usec, reason="test"
    )


def in_cgroup(cgroup: Path, command: str) -> None:
    subprocess.run(["/bin/sh", "-c", f"echo 0 > {cgroup}/cgroup.procs && {command}"], check=True)


def fall_back_to(ground: Ground, before: int, *, deadline_sec: float = 30) -> int:
    """Dying memcgs, once they are about what they were; freeing them is left to a kworker."""
    deadline = time.monotonic() + deadline_sec
    while (left := ground.backend.total_dying()) > before + OTHERS and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def test_all_that_is_dying_goes_where_nobody_lives(ground: Ground, tell: Tell) -> None:
    count = 5_000
    with ground.dying(count, size=PAGE_BYTES) as made:
        [residue] = [each for each in ground.backend.residues() if each.path == ground.parent]
        # A host with DAMON's proactive reclaim takes some back meanwhile.
        assert residue.dying > count // 2
        assert abs(residue.dying - ground.backend.total_dying()) <= count // 10
        assert count * PAGE_BYTES // 2 < residue.file_bytes <= count * PAGE_BYTES
        windows = ground.release(ground.parent)
        assert sum(window.freed_bytes for window in windows) >= residue.file_bytes * 9 // 10
        assert sum(window.stolen_pages for window in windows) == 0
        ground.wait_for_no_residue()
        left = fall_back_to(ground, made.dying_before)
        assert left <= made.dying_before + OTHERS
        tell(
            f"{count} dying memcgs: {sum(window.writes for window in windows)} slices, "
            f"{sum(window.cpu_usec for window in windows) / 1000:.0f} ms of CPU, longest slice "
            f"{max(window.longest_write_usec for window in windows) / 1000:.1f} ms"
        )


def test_by_default_it_is_left_alone(ground: Ground) -> None:
    with ground.live("n", 20 * MIB), ground.dying(300, size=64 << 10):
        decision = ground.decide(ground.parent, DEFAULTS)
        assert isinstance(decision, Skip)
        assert "reclaim.shared is off" in decision.reason
        assert ground.reclaim(ground.parent, DEFAULTS) == []


def test_too_much_lives_beside_it(ground: Ground) -> None:
    with ground.live("n", 20 * MIB), ground.dying(300, size=64 << 10):
        assert ground.backend.read(ground.parent).live_bytes > 15 * MIB
        decision = ground.decide(ground.parent)
        assert isinstance(decision, Wait)
        assert "reclaim.shared_ratio" in decision.reason


def test_swap_in_use_forbids_it(ground: Ground, tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemFree: 9999999 kB\nMemAvailable: 9999999 kB\nSwapTotal: 1024 kB\n")
    for name in ("cgroups", "pressure"):
        (tmp_path / name).symlink_to(f"/proc/{name}")
    with ground.dying(300):
        swapping = V1Backend(
            ground.hierarchy, ground.backend.features, ground.ledger, roots=(ground.top,), proc=tmp_path
        )
        decision = policy.decide(swapping.read(ground.parent), SHARED)
        assert isinstance(decision, Skip)
        assert "swap is in use" in decision.reason
        assert isinstance(ground.decide(ground.parent), Reclaim)
        ending = ground.make(f"{ground.parent}/ending")
        in_cgroup(ending, f"head -c {MIB} /dev/zero > {ground.work_dir}/file; sync {ground.work_dir}/file")
        with shared_memory(ending, MIB):
            decision = policy.decide_ending(swapping.read_ending(f"{ground.parent}/ending"), SHARED)
            assert isinstance(decision, Skip)
            assert "would swap out" in decision.reason


@contextmanager
def shared_memory(cgroup: Path, size: int) -> Iterator[None]:
    file = Path(f"/dev/shm/lgtest-{os.getpid()}")
    in_cgroup(cgroup, f"head -c {size} /dev/zero > {file}")
    try:
        yield
    finally:
        file.unlink()


def test_the_root_is_never_written_to(ground: Ground) -> None:
    whole = V1Backend(ground.hierarchy, ground.backend.features, ground.ledger)
    assert isinstance(policy.decide(whole.read("/"), SHARED), Skip)


def test_what_live_ones_lost_is_never_more_than_told(ground: Ground, tell: Tell) -> None:
    """The price of the parent path, where an administrator allows it."""
    with ground.live("n", 8 * MIB), ground.dying(300, size=128 << 10):
        before = ground.local(f"{ground.parent}/n")
        windows: list[Window] = []
        while residue := ground.residue(ground.parent):  # further than the policy would go
            windows.append(ground.backend.reclaim(residue, plan(), lambda: False))
        lost_pages = (before.cache - ground.local(f"{ground.parent}/n").cache) // PAGE_BYTES
        told = sum(window.stolen_pages for window in windows)
        # The counters lag behind by 64 pages a CPU.
        assert told >= lost_pages - 64 * (os.cpu_count() or 1)
        tell(f"a neighbour of 8 MiB beside 37 MiB of residue lost {lost_pages} pages, told {told} at most")


def test_slices_end_in_time_and_the_rest_comes_later(ground: Ground, tell: Tell) -> None:
    with ground.dying(2_000, size=128 << 10):
        residue = ground.backend.read(ground.parent).residue
        window = ground.backend.reclaim(residue, plan(slice_usec=2_000, window_usec=6_000), lambda: False)
        assert window.outcome is Outcome.PARTIAL
        assert 0 < window.freed_bytes < residue.file_bytes
        assert window.after.file_bytes > 0
        one = ground.backend.reclaim(residue, plan(window_usec=60_000_000), lambda: True)
        assert one.writes == 1
        tell(f"slices of 2 ms: {window.writes}, the longest {window.longest_write_usec / 1000:.1f} ms")
        ground.release(ground.parent)
        ground.wait_for_no_residue()


def test_below_a_live_child_the_child_is_the_target(ground: Ground) -> None:
    child = f"{ground.parent}/child"
    ground.make(child)
    with ground.dying(200, size=64 << 10, under=child):
        assert [each.path for each in policy.deepest_first(ground.backend.residues())] == [child]
        assert ground.backend.read(ground.parent).residue.file_bytes == 0
        ground.release(child)
        ground.wait_for_no_residue()


def test_pages_that_others_map_are_kept(ground: Ground) -> None:
    with ground.dying(100, size=128 << 10, pattern=Pattern.MAPPED):
        decision = ground.decide(ground.parent)
        assert isinstance(decision, Wait)
        assert decision.keeps_mapped
        few = replace(SHARED, reclaim=replace(SHARED.reclaim, keep_mapped_above_bytes=64 * MIB))
        assert isinstance(ground.decide(ground.parent, few), Reclaim)


def test_dirty_pages_are_waited_for(ground: Ground) -> None:
    gone = ground.make(f"{ground.parent}/gone")
    in_cgroup(gone, f"head -c {4 * MIB} /dev/urandom > {ground.work_dir}/dirty")
    gone.rmdir()
    ground.settle()
    decision = ground.decide(ground.parent)
    if not isinstance(decision, Reclaim):  # else it was written back by now
        assert "writeback" in decision.reason
    os.sync()
    ground.release(ground.parent)


# The exact way: the ending cgroup itself


def test_an_ending_cgroup_gives_its_cache_and_no_sibling_does(ground: Ground, tell: Tell) -> None:
    size = 64 * MIB
    with ground.live("n", 20 * MIB) as held:
        ending = ground.make(f"{ground.parent}/ending")
        files = ground.work_dir / "files"
        files.mkdir()
        in_cgroup(ending, f"head -c {size} /dev/zero > {files}/file; sync {files}/file")
        ground.settle()
        reading = ground.backend.read_ending(f"{ground.parent}/ending")
        # By the pages themselves: a host's own proactive reclaim (DAMON) takes some of them in the long run.
        held_bytes = resident_pages(files) * PAGE_BYTES
        assert held_bytes > size // 2
        assert reading.residue.file_bytes == pytest.approx(held_bytes, rel=0.1)
        decision = policy.decide_ending(reading, DEFAULTS)
        assert isinstance(decision, Reclaim)
        decision = replace(decision, window_usec=60_000_000)  # however busy this machine is
        before = resident_pages(ground.work_dir / "n")
        window = ground.backend.reclaim_ending(reading.residue, decision, lambda: False)
        assert resident_pages(ground.work_dir / "n") == before
        ground.settle()
        assert ground.local(f"{ground.parent}/ending").cache <= MIB
        assert window.freed_bytes == pytest.approx(held_bytes, rel=0.1)
        assert window.longest_write_usec < 60_000_000
        tell(
            f"{held_bytes / MIB:.0f} MiB of an ending cgroup: {window.writes} slices, "
            f"{window.wall_usec / 1000:.1f} ms, the longest slice {window.longest_write_usec / 1000:.1f} ms"
        )
        assert held.held_bytes == 20 * MIB


def test_an_ending_cgroup_keeps_what_is_much_mapped(ground: Ground) -> None:
    ending = ground.make(f"{ground.parent}/ending")
    file = ground.work_dir / "file"
    in_cgroup(ending, f"head -c {16 * MIB} /dev/zero > {file}; sync {file}")
    with file.open("rb") as reading, mmap.mmap(reading.fileno(), 0, prot=mmap.PROT_READ) as mapping:
        for offset in range(0, 12 * MIB, mmap.PAGESIZE):
            _ = mapping[offset]
        ground.settle()
        decision = policy.decide_ending(ground.backend.read_ending(f"{ground.parent}/ending"), DEFAULTS)
    assert isinstance(decision, Wait)
    assert "mapped" in decision.reason


def test_an_ending_cgroup_that_is_gone(ground: Ground) -> None:
    path = f"{ground.parent}/ending"
    ground.make(path)
    residue = ground.backend.read_ending(path).residue
    ground.directory(path).rmdir()
    with pytest.raises(CgroupGone):
        ground.backend.reclaim_ending(residue, plan(), lambda: False)
    ground.make(path)
    with pytest.raises(CgroupGone):  # another one at the same path
        ground.backend.reclaim_ending(residue, plan(), lambda: False)


def test_a_removal_waits_for_one_slice_at_most(ground: Ground, tell: Tell) -> None:
    """Of a parent whose residue takes many slices."""
    path = f"{ground.parent}/target"
    took_sec = []
    for reclaims in (False, True):
        target = ground.make(path)
        with ground.dying(20_000, size=PAGE_BYTES, under=path):
            residue = ground.backend.read(path).residue
            windows = [plan(window_usec=30_000_000)] if reclaims else []
            with ThreadPoolExecutor(1) as executor:
                running = [
                    executor.submit(ground.backend.reclaim, residue, each, lambda: False) for each in windows
                ]
                time.sleep(0.02)
                began = time.monotonic()
                target.rmdir()
                took_sec.append(time.monotonic() - began)
                for each in running:
                    with suppress(CgroupGone):  # unless it had come to its end already
                        each.result()
        ground.release(ground.parent)
    tell(
        "rmdir of a cgroup with 20,000 dying ones below:"
        f" {took_sec[0] * 1000:.1f} ms, {took_sec[1] * 1000:.1f} ms while slices run"
    )


def test_a_kernel_that_refuses_is_typed(ground: Ground) -> None:
    """The root says EINVAL before it does anything, and is what no root of ours is."""
    whole = V1Backend(ground.hierarchy, ground.backend.features, ground.ledger, roots=(ground.top,))
    with (
        ground.hierarchy.open(ground.parent) as target,
        pytest.raises(KernelRefused, match="Bad file"),
        target.errors("memory.force_empty"),
    ):
        whole._interrupter.write(-1, b"0", 1_000)


def test_what_shows_only_a_part_cannot_be_counted(ground: Ground, tmp_path: Path) -> None:
    part = replace(ground.hierarchy, mount=ground.directory(ground.top))
    assert isinstance(choose(ground.hierarchy, Ledger(tmp_path)), V1Backend)
    assert isinstance(choose(part, Ledger(tmp_path)), ObserveBackend)


def test_the_count_is_that_of_a_walk(ground: Ground) -> None:
    def apart() -> int:
        return abs(ground.backend.total_dying() - dying(ground.directory(ground.top)))

    deadline = time.monotonic() + 60
    while apart() > OTHERS:  # those of the tests before are still being freed
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_no_settings_make_the_sweep_write_where_nothing_is_dying(ground: Ground) -> None:
    for config in (SHARED, DEFAULTS, Config()):
        assert isinstance(ground.decide(ground.parent, config), Skip)
