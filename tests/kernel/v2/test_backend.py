"""The conditions that shielded reclaim stands on, each on the kernel that runs this."""

from __future__ import annotations

import contextlib
import mmap
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from logindguard import policy
from logindguard.config import Config
from logindguard.kernel import writer
from logindguard.kernel.births import LATELY_SEC, Births
from logindguard.kernel.cgroupfs import PAGE_BYTES, Cgroup, CgroupGone, Hierarchy, Unsupported
from logindguard.kernel.shield import Shield
from logindguard.kernel.v2 import V2Backend
from logindguard.kernel.writer import TAIL_BYTES
from logindguard.model import Decision, Outcome, Reclaim, Skip, Wait, Window
from tests.conftest import Tell
from tests.kernel.v2.conftest import MIB, Ground
from tests.lab.leak import Pattern, leaked, own_cgroup
from tests.lab.neighbour import Neighbour, neighbour
from tests.lab.visitor import visitor

DYING = 300
BORN = 8


@contextlib.contextmanager
def dying(ground: Ground, count: int = DYING, *, under: str = "", size: int = 16 << 10) -> Iterator[None]:
    """Clean page cache in `count` memcgs that are gone."""
    parent = under or ground.parent
    with leaked(
        root=ground.directory(ground.top),
        parent=ground.directory(parent),
        work_dir=ground.work_dir / "leak",
        count=count,
        bytes_each=size,
    ):
        assert ground.dying(parent) >= count
        yield


@contextlib.contextmanager
def live(ground: Ground, name: str, size: int) -> Iterator[Neighbour]:
    path = f"{ground.parent}/{name}"
    ground.make(path, control=False)
    with neighbour(work_dir=ground.work_dir / name, size=size, cgroup=ground.directory(path)) as held:
        yield held


def lost_pages(ground: Ground, *names: str) -> int:
    ground.settle()
    return sum(ground.stat(f"{ground.parent}/{name}").pgsteal for name in names)


def test_everything_dying_and_nothing_live(ground: Ground) -> None:
    with live(ground, "n", 50 * MIB), dying(ground):
        [residue] = [each for each in ground.backend.residues() if each.path == ground.parent]
        assert residue.dying == DYING
        ground.settle()
        reading = ground.backend.read(ground.parent)
        assert reading.residue.file_bytes == pytest.approx(DYING * (16 << 10), rel=0.1)
        windows = ground.reclaim_all(ground.parent)
        assert {window.outcome for window in windows} <= {
            Outcome.RELEASED,
            Outcome.PARTIAL,
            Outcome.UNCHANGED,
        }
        assert ground.dying(ground.parent) == 0
        assert sum(window.freed_bytes for window in windows) == pytest.approx(DYING * (16 << 10), rel=0.1)
        assert sum(window.stolen_pages for window in windows) == 0
        assert lost_pages(ground, "n") == 0
        assert ground.stat(f"{ground.parent}/n").file >= 50 * MIB
        assert ground.memory_min(f"{ground.parent}/n") == 0
        assert ground.ledger.entries() == []
        assert ground.backend.residues() == []


def test_without_the_shield_the_neighbour_loses(ground: Ground) -> None:
    """The control: what the tests around it would see if the shield did nothing."""
    with live(ground, "n", 50 * MIB), dying(ground):
        with ground.hierarchy.open(ground.parent) as parent, contextlib.suppress(Exception):
            parent.write("memory.reclaim", str(60 * MIB))
        assert lost_pages(ground, "n") > 0


def test_neighbours_that_grow_shrink_and_exit_lose_nothing(ground: Ground) -> None:
    stop = threading.Event()

    def grow(held: Neighbour) -> None:
        while not stop.is_set() and held.held_bytes < 200 * MIB:
            held.grow(4 * MIB)

    def shrink(held: Neighbour) -> None:
        while not stop.is_set() and held.held_bytes:
            held.shrink(MIB)

    with contextlib.ExitStack() as stack:
        growing = stack.enter_context(live(ground, "growing", 20 * MIB))
        shrinking = stack.enter_context(live(ground, "shrinking", 100 * MIB))
        exiting = contextlib.ExitStack()
        exiting.enter_context(live(ground, "exiting", 30 * MIB))
        stack.enter_context(dying(ground, 1_000))
        threads = [
            threading.Thread(target=grow, args=(growing,)),
            threading.Thread(target=shrink, args=(shrinking,)),
        ]
        for thread in threads:
            thread.start()
        try:
            windows = [ground.reclaim(ground.parent, max_bytes=2 * MIB)]
            before_exit = ground.stat(f"{ground.parent}/exiting").pgsteal
            exiting.close()
            windows += ground.reclaim_all(ground.parent)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert ground.dying(ground.parent) <= 10  # what went offline dirty a moment ago
        assert sum(window.stolen_pages for window in windows) == 0
        assert lost_pages(ground, "growing", "shrinking", "exiting") + before_exit == 0


def test_a_sibling_born_in_the_window_is_covered(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    late = contextlib.ExitStack()
    raise_, calls = Shield.raise_, [0]

    def born_before_the_second_write(shield: Shield) -> None:
        calls[0] += 1
        if calls[0] == 2:
            late.enter_context(live(ground, "late", 30 * MIB))
        raise_(shield)

    monkeypatch.setattr(Shield, "raise_", born_before_the_second_write)
    with late, live(ground, "n", 10 * MIB), dying(ground, 75, size=512 << 10):
        plan = Reclaim(
            max_bytes=512 * MIB, keep_mapped=False, window_usec=60_000_000, write_usec=500, reason="test"
        )
        window = ground.backend.reclaim(ground.backend.read(ground.parent).residue, plan, lambda: False)
        assert calls[0] >= 2
        assert window.shielded == 2
        assert window.stolen_pages == 0
        assert lost_pages(ground, "n", "late") == 0
        assert ground.memory_min(f"{ground.parent}/late") == 0


@pytest.mark.parametrize("covered", [True, False], ids=["covered", "not covered"])
def test_siblings_born_amid_one_write_lose_nothing(ground: Ground, *, covered: bool, tell: Tell) -> None:
    """A write that asks for more than there is goes down to priority 0, and tries again and again."""
    births = Births() if covered else None
    backend = V2Backend(ground.hierarchy, ground.features, ground.ledger, roots=(ground.top,), births=births)
    home = own_cgroup(ground.directory(ground.top))
    file = ground.work_dir / "read"
    with file.open("wb") as out:
        out.write(bytes(BORN * MIB))
        os.fsync(out.fileno())
        os.posix_fadvise(out.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    born: list[str] = []
    covered_after_msec: list[float] = []
    windows: list[Window] = []
    with (
        leaked(  # a long walk that finds nothing
            root=ground.directory(ground.top),
            parent=ground.directory(ground.parent),
            work_dir=Path("/dev/shm/lgtest-births"),
            count=2_000,
            bytes_each=PAGE_BYTES,
            pattern=Pattern.SHMEM,
        ),
        visitor(home) as guest,
        ThreadPoolExecutor(1) as pool,
    ):
        guest.write(home, ground.work_dir / "ready", PAGE_BYTES)
        plan = Reclaim(
            max_bytes=64 * MIB, keep_mapped=False, window_usec=10**7, write_usec=10**6, reason="test"
        )
        while len(born) < BORN // 2:
            residue = backend.read(ground.parent).residue
            going = pool.submit(backend.reclaim, residue, plan, lambda: False)
            while not going.done() and len(born) < BORN:
                child = f"{ground.parent}/born-{len(born)}"
                made = time.monotonic()
                ground.make(child, control=False)
                # systemd takes some time too until a process is in there.
                while covered and not going.done() and ground.memory_min(child) == 0:
                    time.sleep(0.001)
                covered_after_msec.append((time.monotonic() - made) * 1000)
                guest.read(ground.directory(child), file, len(born) * MIB, MIB)
                born.append(child)
            windows.append(going.result())
    ground.settle()
    lost = sum(ground.stat(child).pgsteal for child in born)
    took_msec = [window.longest_write_usec // 1000 for window in windows]
    tell(f"{len(born)} born amid writes of {took_msec} ms lost {lost} pages")
    if covered:
        assert [window.writes for window in windows] == [1] * len(windows)
        tell(f"covered after {min(covered_after_msec):.1f} to {max(covered_after_msec):.1f} ms")
        assert lost == 0
        assert {ground.memory_min(child) for child in born} == {0}


@pytest.mark.parametrize("little", [True, False], ids=["little by little", "all at once"])
def test_one_that_has_no_shield_yet_loses_nothing_while_there_is_something_dying(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, *, little: bool, tell: Tell
) -> None:
    """The kernel finds a little at priorities at which it does not look at what is as small as a newborn."""
    uncovered = Shield._uncovered_child

    def all_but_the_newborn(shield: Shield, child: Cgroup, depth: int = 0) -> Iterator[Any]:
        return iter(()) if child.path.endswith("/newborn") else uncovered(shield, child, depth)

    monkeypatch.setattr(Shield, "_uncovered_child", all_but_the_newborn)
    if not little:
        monkeypatch.setattr(writer, "LITTLE_PART", 1)
    with live(ground, "n", 10 * MIB), live(ground, "newborn", MIB), dying(ground, 12, size=MIB):
        ground.settle()
        plan = Reclaim(
            max_bytes=12 * MIB, keep_mapped=False, window_usec=60_000_000, write_usec=10**6, reason="test"
        )
        window = ground.backend.reclaim(ground.backend.read(ground.parent).residue, plan, lambda: False)
        lost = lost_pages(ground, "newborn")
        tell(
            f"{window.freed_bytes / MIB:.1f} MiB in {window.writes} writes, {window.wall_usec // 1000} ms,"
            f" {lost} of {MIB // PAGE_BYTES} pages of the newborn lost"
        )
        assert window.freed_bytes > 11 * MIB
        assert lost_pages(ground, "n") == 0
        if little:
            assert lost == 0
        elif not ground.features.partial_walks:  # they end before it comes to the newborn
            assert lost > 0


def test_the_last_of_a_residue_waits_while_others_are_born_beside_it(ground: Ground) -> None:
    births = Births()
    backend = V2Backend(ground.hierarchy, ground.features, ground.ledger, roots=(ground.top,), births=births)
    over = threading.Event()

    def bear() -> None:
        born = 0
        while not over.wait(LATELY_SEC / 5):
            ground.make(f"{ground.parent}/born-{born}", control=False)
            born += 1

    def window(max_bytes: int) -> Window:
        residue = backend.read(ground.parent).residue
        plan = Reclaim(
            max_bytes=max_bytes, keep_mapped=False, window_usec=60_000_000, write_usec=10**6, reason="test"
        )
        return backend.reclaim(residue, plan, lambda: False)

    with live(ground, "n", MIB), dying(ground, 8, size=MIB):
        ground.settle()
        bearing = threading.Thread(target=bear)
        bearing.start()
        try:
            with (
                ground.hierarchy.open(ground.parent) as parent,
                births.told(parent, lambda name: None) as lately,
            ):
                assert lately is not None
                while not lately():
                    time.sleep(0.001)
            put_off = window(TAIL_BYTES // 2)
        finally:
            over.set()
            bearing.join()
        assert (put_off.put_off, put_off.writes, put_off.outcome) == (True, 0, Outcome.UNCHANGED)
        assert "born" in put_off.reason
        time.sleep(2 * LATELY_SEC)
        quiet = window(16 * MIB)
        assert not quiet.put_off
        assert quiet.after.file_bytes == 0
        assert lost_pages(ground, "n") == 0


def test_what_an_ending_scope_gives_meanwhile_is_no_loss(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A logout's own reclaim, while a window is open on a slice above it."""
    slice_, size = f"{ground.parent}/slice", 4 * MIB
    ending = f"{slice_}/ending"
    ground.make(slice_)
    ground.make(ending, control=False)
    file = ground.work_dir / "ending"
    subprocess.run(
        [
            "/bin/sh",
            "-c",
            f"echo 0 >{ground.directory(ending)}/cgroup.procs; head -c {size} /dev/zero >{file}",
        ],
        check=True,
    )
    os.sync()
    raise_ = Shield.raise_
    gave: list[int] = []

    def logout(shield: Shield) -> None:
        raise_(shield)
        if not gave:
            plan = Reclaim(
                max_bytes=64 * MIB, keep_mapped=False, window_usec=10**7, write_usec=4_000, reason=""
            )
            residue = ground.backend.read_ending(ending).residue
            gave.append(ground.backend.reclaim_ending(residue, plan, lambda: False).freed_bytes)

    with dying(ground):
        ground.settle()
        monkeypatch.setattr(Shield, "raise_", logout)
        window = ground.reclaim(ground.parent)
    assert gave[0] == pytest.approx(size, rel=0.1)
    assert ground.stat(slice_).pgsteal * PAGE_BYTES == pytest.approx(size, rel=0.1)
    assert window.stolen_pages == 0
    assert window.freed_bytes == pytest.approx(DYING * (16 << 10), rel=0.1)


def test_below_a_live_child_only_the_nearest_live_parent_reaches(ground: Ground) -> None:
    """With memory_recursiveprot the shield of a live child covers what is dying below it."""
    child = f"{ground.parent}/child"
    ground.make(child)
    ground.make(f"{child}/live", control=False)
    with dying(ground, under=child):
        [residue] = policy.deepest_first(ground.backend.residues())
        assert (residue.path, residue.dying) == (child, DYING)
        ground.reclaim(ground.parent)
        assert ground.dying(child) == DYING
        ground.reclaim_all(child)
        assert ground.dying(child) == 0


def test_without_recursiveprot_descendants_are_covered_one_by_one(ground: Ground) -> None:
    child = f"{ground.parent}/child"
    subprocess.run(["mount", "-o", "remount,nsdelegate", ground.hierarchy.mount], check=True)
    try:
        hierarchy = Hierarchy(2, ground.hierarchy.mount, frozenset({"nsdelegate"}))
        features = replace(ground.features, recursiveprot=False)
        ground.backend = V2Backend(hierarchy, features, ground.ledger, roots=(ground.top,))
        ground.make(child)
        ground.make(f"{child}/n", control=False)
        with (
            neighbour(work_dir=ground.work_dir / "n", size=30 * MIB, cgroup=ground.directory(f"{child}/n")),
            dying(ground),
        ):
            windows = ground.reclaim_all(ground.parent)
            assert windows[0].shielded == 2
            assert ground.dying(ground.parent) == 0
            ground.settle()
            assert ground.stat(f"{child}/n").pgsteal == 0
    finally:
        subprocess.run(
            ["mount", "-o", "remount,nsdelegate,memory_recursiveprot", ground.hierarchy.mount], check=True
        )


def test_the_root_is_never_written_to(ground: Ground) -> None:
    reading = V2Backend(ground.hierarchy, ground.features, ground.ledger).read("/")
    decision = policy.decide(reading, Config())
    assert isinstance(decision, Skip)


@pytest.mark.parametrize("file", ["memory.max", "memory.high"])
def test_a_tight_limit_means_no_shield(ground: Ground, file: str) -> None:
    with live(ground, "n", 20 * MIB), dying(ground, 50):
        (ground.directory(ground.top) / file).write_text(str(60 * MIB))
        reading = ground.backend.read(ground.parent)
        assert reading.headroom_bytes is not None
        assert reading.headroom_bytes < 60 * MIB
        decision = policy.decide(reading, Config())
        assert isinstance(decision, Wait)
        assert "headroom" in decision.reason


def test_pages_that_others_map_are_kept(ground: Ground) -> None:
    """A file that a session was first to read, mapped by a live process elsewhere."""
    size = 40 * MIB
    file = ground.work_dir / "library"
    with file.open("wb") as writing:
        for _ in range(40):
            writing.write(os.urandom(MIB))
        os.fsync(writing.fileno())
        os.posix_fadvise(writing.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    reader = ground.make(f"{ground.parent}/reader", control=False)
    _in_cgroup(reader, f"cat {file} > /dev/null")
    reader.rmdir()
    with file.open("rb") as reading, mmap.mmap(reading.fileno(), size, prot=mmap.PROT_READ) as mapping:
        for offset in range(0, size, mmap.PAGESIZE):
            _ = mapping[offset]
        with dying(ground, 100, size=128 << 10):  # enough beside the mapped share to be worth it
            ground.settle()
            config = Config()
            mapped = ground.backend.read(ground.parent).residue.mapped_bytes
            assert mapped == pytest.approx(size, rel=0.05)
            decision: Decision = Skip(reason="")
            for _ in range(20):
                reading_now = ground.backend.read(ground.parent)
                decision = policy.decide(reading_now, config)
                if not isinstance(decision, Reclaim):
                    break
                assert decision.keep_mapped
                assert not ground.features.mglru  # which cannot keep them
                ground.backend.reclaim(reading_now.residue, decision, lambda: False)
            assert isinstance(decision, Wait)
            assert decision.keeps_mapped
            ground.settle()
            # What may go within an hour, and what one window may take before it is seen.
            allowed = config.reclaim.keep_mapped_above_bytes // policy.MAPPED_PART + MIB // 2
            assert ground.backend.read(ground.parent).residue.mapped_bytes >= size - allowed
    ground.reclaim_all(ground.parent)


def _in_cgroup(cgroup: Path, command: str) -> None:
    subprocess.run(["/bin/sh", "-c", f"echo 0 > {cgroup}/cgroup.procs && {command}"], check=True)


def test_what_one_small_write_takes_of_a_dying_memcg(ground: Ground) -> None:
    """With MGLRU half of it, whatever was asked: what decisions about such kernels rest on."""
    with dying(ground, 1, size=16 * MIB):
        ground.settle()
        before = ground.stat(ground.parent).file
        with ground.hierarchy.open(ground.parent) as parent:
            parent.write("memory.reclaim", str(128 << 10))
        ground.settle()
        taken = before - ground.stat(ground.parent).file
        if ground.features.mglru:
            assert taken >= 6 * MIB
            assert not ground.backend.read(ground.parent).spares_mapped
        else:
            assert taken <= 2 * MIB


def test_shared_memory_is_not_swapped_out(ground: Ground) -> None:
    shm = Path(f"/dev/shm/lgtest-{os.getpid()}")
    gone = ground.make(f"{ground.parent}/gone", control=False)
    _in_cgroup(gone, f"head -c {8 * MIB} /dev/zero > {shm}")
    gone.rmdir()
    try:
        ground.settle()
        reading = ground.backend.read(ground.parent)
        assert reading.residue.shmem_bytes == pytest.approx(8 * MIB, rel=0.05)
        decision = policy.decide(replace(reading, swap_on=True, refuses_swap=False), Config())
        assert isinstance(decision, Skip)
        assert "swap" in decision.reason
    finally:
        shm.unlink()


def test_dirty_pages_are_waited_for(ground: Ground) -> None:
    gone = ground.make(f"{ground.parent}/gone", control=False)
    _in_cgroup(gone, f"head -c {4 * MIB} /dev/urandom > {ground.work_dir}/dirty")
    gone.rmdir()
    decision = policy.decide(ground.backend.read(ground.parent), Config())
    if isinstance(decision, Reclaim):  # its clean remainder: the shell's own pages
        assert decision.max_bytes < 3 * MIB
    else:
        assert "writeback" in decision.reason
    os.sync()
    ground.settle()
    ground.reclaim_all(ground.parent)
    assert ground.dying(ground.parent) <= 1


def test_a_target_that_is_gone(ground: Ground) -> None:
    residue = ground.backend.read(ground.parent).residue
    ground.directory(ground.parent).rmdir()
    plan = Reclaim(max_bytes=MIB, keep_mapped=False, window_usec=1_000, write_usec=1_000, reason="test")
    with pytest.raises(CgroupGone):
        ground.backend.reclaim(residue, plan, lambda: False)
    ground.make(ground.parent)
    with pytest.raises(CgroupGone):  # another one at the same path
        ground.backend.reclaim(residue, plan, lambda: False)


def test_outside_the_roots_nothing_is_done(ground: Ground) -> None:
    whole = V2Backend(ground.hierarchy, ground.features, ground.ledger)
    residue = whole.read("/system.slice").residue
    plan = Reclaim(max_bytes=MIB, keep_mapped=False, window_usec=1_000, write_usec=1_000, reason="test")
    with pytest.raises(ValueError, match="outside the configured roots"):
        ground.backend.reclaim(residue, plan, lambda: False)
    assert all(each.path.startswith(ground.top) for each in ground.backend.residues())


def test_units_that_hold_processes_are_no_targets(ground: Ground) -> None:
    ground.make(f"{ground.top}/a.service")
    assert ground.backend.read(f"{ground.top}/a.service").own_pages
    leaf = ground.make(f"{ground.top}/leaf", control=False)
    assert not ground.backend.read(f"{ground.top}/leaf").own_pages  # nobody lives there
    with neighbour(work_dir=ground.work_dir / "n", size=MIB, cgroup=leaf):
        assert ground.backend.read(f"{ground.top}/leaf").own_pages
    assert not ground.backend.read(ground.parent).own_pages


def test_an_emptied_slice_without_the_controller_is_reclaimed(ground: Ground) -> None:
    """systemd takes the memory controller away from user.slice when the last user's slice goes."""
    with dying(ground):
        (ground.directory(ground.parent) / "cgroup.subtree_control").write_text("-memory")
        ground.reclaim_all(ground.parent)
        assert ground.dying(ground.parent) == 0


def test_processes_without_the_controller_mean_no_shield(ground: Ground) -> None:
    with dying(ground, 50):
        residue = ground.backend.read(ground.parent).residue
        (ground.directory(ground.parent) / "cgroup.subtree_control").write_text("-memory")
        with live(ground, "n", MIB):
            assert ground.backend.read(ground.parent).own_pages
            plan = Reclaim(
                max_bytes=MIB, keep_mapped=False, window_usec=1_000, write_usec=1_000, reason="test"
            )
            with pytest.raises(Unsupported):
                ground.backend.reclaim(residue, plan, lambda: False)
            assert ground.dying(ground.parent) == 50


def test_an_ending_cgroup_gives_its_clean_cache_before_the_rmdir(ground: Ground) -> None:
    with live(ground, "n", 20 * MIB), live(ground, "ending", 20 * MIB) as held:
        path = f"{ground.parent}/ending"
        reading = ground.backend.read_ending(path)
        decision = policy.decide_ending(reading, Config())
        assert isinstance(decision, Reclaim)
        for _ in range(20):
            ground.backend.reclaim_ending(reading.residue, decision, lambda: False)
        ground.settle()
        assert ground.stat(path).file < 6 * MIB
        assert lost_pages(ground, "n") == 0
        assert held.held_bytes == 20 * MIB


def test_a_stop_between_two_writes(ground: Ground) -> None:
    with live(ground, "n", 10 * MIB), dying(ground, 600, size=64 << 10):
        plan = Reclaim(
            max_bytes=512 * MIB, keep_mapped=False, window_usec=60_000_000, write_usec=500, reason="test"
        )
        window = ground.backend.reclaim(ground.backend.read(ground.parent).residue, plan, lambda: True)
        assert window.writes == 1
        assert ground.memory_min(f"{ground.parent}/n") == 0
        ground.reclaim_all(ground.parent)
