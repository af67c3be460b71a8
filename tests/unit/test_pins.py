"""What dying memcgs hold, by kind, on both versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from logindguard.kernel.cgroupfs import BadReading, CgroupGone, Hierarchy
from logindguard.kernel.pins import Explained, Kind, TooMany, explain
from tests.unit.fake_cgroupfs import FakeTree

MIB = 1 << 20


def v2(directory: Path, **figures: int) -> None:
    """memory.stat in MiB; `current` and `swap` are files of their own."""
    directory.mkdir(exist_ok=True)
    (directory / "memory.current").write_text(f"{figures.pop('current', 0) * MIB}\n")
    (directory / "memory.swap.current").write_text(f"{figures.pop('swap', 0) * MIB}\n")
    (directory / "cgroup.stat").write_text(f"nr_dying_descendants {figures.pop('dying', 0)}\n")
    (directory / "cgroup.procs").write_text("")
    keys = ("anon", "file", "shmem", "file_mapped", "file_dirty", "file_writeback", "slab", "sock", "percpu")
    (directory / "memory.stat").write_text("".join(f"{key} {figures.get(key, 0) * MIB}\n" for key in keys))


def v1(directory: Path, total: dict[str, int], kmem: int = 0, usage: int = 0, **own: int) -> None:
    directory.mkdir(exist_ok=True)
    keys = ("cache", "rss", "shmem", "mapped_file", "dirty", "writeback", "swap")
    (directory / "memory.stat").write_text(
        "".join(f"{key} {own.get(key, 0) * MIB}\ntotal_{key} {total.get(key, 0) * MIB}\n" for key in keys)
    )
    (directory / "memory.kmem.usage_in_bytes").write_text(f"{kmem * MIB}\n")
    (directory / "memory.usage_in_bytes").write_text(f"{usage * MIB}\n")
    (directory / "cgroup.procs").write_text("")


def held(found: Explained) -> dict[Kind, int]:
    """MiB of each kind that is held."""
    return {pin.kind: pin.held_bytes // MIB for pin in found.pins if pin.held_bytes}


def test_every_kind_of_v2_less_that_of_live_children(tmp_path: Path) -> None:
    v2(
        tmp_path,
        dying=7,
        current=100,
        swap=5,
        file=60,
        shmem=3,
        file_mapped=8,
        file_dirty=10,
        file_writeback=2,
        anon=12,
        slab=9,
        sock=4,
        percpu=6,
    )
    v2(tmp_path / "live", dying=3, current=20, swap=1, file=15, file_dirty=4, anon=5)
    found = explain(Hierarchy(2, tmp_path), "/")
    assert (found.dying, found.live_children, found.processes) == (4, 1, False)
    assert held(found) == {
        Kind.CLEAN: 45 - 3 - 8 - 6 - 2,
        Kind.DIRTY: 6,
        Kind.WRITEBACK: 2,
        Kind.MAPPED: 8,
        Kind.SHMEM: 3,
        Kind.ANON: 7,
        Kind.SWAP: 4,
        Kind.SLAB: 9,
        Kind.SOCK: 4,
        Kind.PERCPU: 6,
        Kind.OTHER: 80 - 45 - 7 - 9 - 4 - 6,
    }
    dirty = next(pin for pin in found.pins if pin.kind is Kind.DIRTY)
    assert (dirty.file, dirty.key) == ("memory.stat", "file_dirty")
    assert (dirty.parent_bytes, dirty.live_bytes) == (10 * MIB, 4 * MIB)


def test_v1_knows_what_the_cgroup_holds_itself(tmp_path: Path) -> None:
    total = {"cache": 50, "rss": 20, "dirty": 6, "swap": 3}
    v1(tmp_path, total, kmem=8, usage=90, cache=10, rss=15, dirty=1)
    v1(tmp_path / "live", {"cache": 20, "rss": 2}, kmem=3, usage=26)
    found = explain(Hierarchy(1, tmp_path), "/")
    assert found.dying is None
    assert held(found) == {
        Kind.CLEAN: 20 - 5,
        Kind.DIRTY: 5,
        Kind.ANON: 3,
        Kind.SWAP: 3,
        Kind.KERNEL: 5,
        Kind.OTHER: 90 - 26 - 25 - 20 - 3 - 5,
    }


def test_never_less_than_nothing(tmp_path: Path) -> None:
    v2(tmp_path, dying=0, file=1, current=1)
    v2(tmp_path / "live", dying=2, file=3, current=4)
    found = explain(Hierarchy(2, tmp_path), "/")
    assert (found.dying, held(found)) == (0, {})


def test_what_a_kernel_does_not_count_is_left_out(tmp_path: Path) -> None:
    tree = FakeTree(tmp_path)  # without slab, sock, percpu and memory.swap.current
    tree.set("/", dying=0, file=MIB)
    found = explain(tree.hierarchy, "/")
    kinds = {pin.kind for pin in found.pins}
    assert kinds.isdisjoint({Kind.SLAB, Kind.SOCK, Kind.PERCPU, Kind.SWAP, Kind.KERNEL})


def test_a_child_without_the_controller_is_part_of_its_parent(tmp_path: Path) -> None:
    v2(tmp_path, file=4, current=4)
    v2(tmp_path / "bare", file=3)
    (tmp_path / "bare/memory.stat").unlink()
    found = explain(Hierarchy(2, tmp_path), "/")
    assert (found.live_children, held(found)) == (0, {Kind.CLEAN: 4})


def test_processes_of_its_own_are_told(tmp_path: Path) -> None:
    v2(tmp_path)
    (tmp_path / "cgroup.procs").write_text("17\n")
    assert explain(Hierarchy(2, tmp_path), "/").processes


def test_what_cannot_be_read(tmp_path: Path) -> None:
    v2(tmp_path)
    with pytest.raises(CgroupGone):
        explain(Hierarchy(2, tmp_path), "/none")
    (tmp_path / "memory.current").write_text("many\n")
    with pytest.raises(BadReading, match=r"memory.current"):
        explain(Hierarchy(2, tmp_path), "/")


def test_it_stops_where_there_is_no_time(tmp_path: Path) -> None:
    v2(tmp_path)
    for name in ("one", "two"):
        v2(tmp_path / name)
    answers = iter([False, True])
    with pytest.raises(TooMany, match=r"takes too long to read, after 1$"):
        explain(Hierarchy(2, tmp_path), "/", should_stop=lambda: next(answers))
