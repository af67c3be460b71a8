"""cgroup v1: what is counted and read, on files of our own."""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from logindguard.kernel.cgroupfs import MAX_DEPTH, BadReading, CgroupGone, Hierarchy, Unsupported
from logindguard.kernel.choose import choose
from logindguard.kernel.features import Features
from logindguard.kernel.ledger import Ledger
from logindguard.kernel.observe import ObserveBackend
from logindguard.kernel.v1 import V1Backend
from logindguard.kernel.v1_count import DyingCount
from logindguard.kernel.v1_stat import NOISE_BYTES, Counters, LiveTree, read_stat, usage_bytes
from logindguard.model import Mode, PlannedWrite, Purpose, Reclaim

MIB = 1 << 20
FEATURES = Features(
    memory_reclaim=False,
    swappiness_word=False,
    partial_walks=True,
    mglru=False,
    recursiveprot=False,
    reparents_lru=None,
    dying_key="",
)


class Tree:
    """The memory hierarchy of v1 below a directory of the test; counters of a cgroup default to 0."""

    def __init__(self, top: Path) -> None:
        top.mkdir()
        self.hierarchy = Hierarchy(1, top)
        self.set("/")

    def directory(self, path: str) -> Path:
        return self.hierarchy.mount / path.strip("/")

    def add(self, path: str, total: dict[str, int] | None = None, **local: int) -> Path:
        self.directory(path).mkdir()
        return self.set(path, total, **local)

    def set(self, path: str, total: dict[str, int] | None = None, **local: int) -> Path:
        """`total` adds to what is local."""
        directory = self.directory(path)
        lines = []
        for item in fields(Counters):
            own = local.get(item.name, 0)
            lines.append(f"{item.name} {own}\ntotal_{item.name} {own + (total or {}).get(item.name, 0)}\n")
        (directory / "memory.stat").write_text("".join(lines) + "hierarchical_memory_limit 1\n")
        (directory / "cgroup.procs").write_text("")
        (directory / "memory.force_empty").write_text("")
        (directory / "memory.usage_in_bytes").write_text("4096\n")
        return directory


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "memory")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    proc = tmp_path / "proc"
    (proc / "pressure").mkdir(parents=True)
    (proc / "meminfo").write_text("MemFree: 1 kB\nMemAvailable: 1024 kB\nSwapTotal: 4 kB\n")
    (proc / "kallsyms").write_text("0000000000000000 T mem_cgroup_iter\n")
    (proc / "cgroups").write_text(
        "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t9\t1\nmemory\t4\t107\t1\n"
    )
    return proc


def live_tree(tree: Tree, path: str) -> LiveTree:
    with tree.hierarchy.open(path) as cgroup:
        return LiveTree.read(cgroup)


def test_the_dying_are_what_has_no_directory(tree: Tree, proc: Path) -> None:
    for path in ("/a", "/a/b", "/a/b/c", "/a/d", "/e"):
        tree.add(path)
    count = DyingCount(tree.hierarchy, proc)
    assert count.total() == 101
    (proc / "cgroups").write_text("memory\t4\t3\t1\n")  # read while cgroups are being made
    assert count.total() == 0
    (proc / "cgroups").write_text("cpu\t1\t9\t1\n")
    assert count.total() == 0


def test_a_count_lists_only_what_changed(tree: Tree, proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("/a", "/a/b", "/c", "/c/d"):
        tree.add(path)
    listed: list[str] = []
    scandir = os.scandir

    def scan(path: str | int) -> Any:
        if isinstance(path, str):  # else it is rmtree's
            listed.append(path.removeprefix(str(tree.directory("/"))))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    count = DyingCount(tree.hierarchy, proc)

    def counted() -> tuple[int, list[str]]:
        listed.clear()
        return 107 - count.total(), sorted(listed)

    assert counted() == (5, ["", "/a", "/c"])
    assert counted() == (5, [])
    tree.add("/a/e")
    assert counted() == (6, ["/a"])
    shutil.rmtree(tree.directory("/a/b"))
    tree.add("/a/another")  # as many as before
    tree.add("/a/another/below")
    assert counted() == (7, ["/a", "/a/another"])
    shutil.rmtree(tree.directory("/a"))
    assert counted() == (3, [""])


def test_a_residue_is_the_total_less_what_lives(tree: Tree) -> None:
    tree.set("/", {"cache": 200 * MIB, "rss": 9 * MIB}, cache=3 * MIB)
    tree.add("/p", {"cache": 100 * MIB, "mapped_file": 7 * MIB, "rss": 2 * MIB}, cache=MIB, dirty=5)
    tree.add("/p/live", cache=60 * MIB, mapped_file=2 * MIB, rss=MIB, dirty=9)
    tree.add("/p/other", {"cache": 5 * MIB}, cache=4 * MIB)
    found = live_tree(tree, "/p")
    residue = found.residue(77)
    assert residue.dying == 77
    assert residue.file_bytes == 31 * MIB
    assert residue.mapped_bytes == 5 * MIB
    assert residue.anon_bytes == MIB
    assert residue.dirty_bytes == 0  # less than nothing is nothing
    assert found.live_bytes == 66 * MIB
    assert {each.path: each.residue(0).file_bytes // MIB for each in live_tree(tree, "/").walk()} == {
        "/p/live": 0,
        "/p/other": 5,
        "/p": 31,
        "/": 99,
    }


def test_so_little_may_be_noise_where_processes_live(tree: Tree) -> None:
    tree.add("/p", {"cache": NOISE_BYTES})
    assert live_tree(tree, "/p").residue(1).file_bytes == NOISE_BYTES
    tree.set("/p", {"cache": NOISE_BYTES}, rss=4096)
    assert live_tree(tree, "/p").residue(1).file_bytes == 0
    tree.set("/p", {"cache": NOISE_BYTES + 4096}, rss=4096)
    assert live_tree(tree, "/p").residue(1).file_bytes == NOISE_BYTES + 4096


@pytest.mark.parametrize(
    ("after", "pages"),
    [
        ({"cache": 20 * MIB}, 0),
        ({"cache": 19 * MIB, "pgpgout": 1}, 256),  # one folio of 1 MiB
        ({"cache": 18 * MIB, "pgpgout": 100}, 512),
        ({"cache": 20 * MIB, "pgpgout": 100}, 0),  # anonymous memory, given back by its owner
        ({"cache": 20 * MIB, "pgpgout": 2, "pgpgin": 2}, 1024),  # or nothing: it cannot be told
        ({"cache": 30 * MIB, "pgpgout": 9, "pgpgin": 1_000}, 4608),
        ({"cache": 30 * MIB, "pgpgout": 90, "pgpgin": 1_000}, 5120),  # all that it held
        ({"cache": 30 * MIB, "pgpgin": 10}, 0),
    ],
)
def test_what_a_live_cgroup_lost_at_most(after: dict[str, int], pages: int) -> None:
    nothing = dict.fromkeys((item.name for item in fields(Counters)), 0)
    before = Counters(**nothing | {"cache": 20 * MIB})
    assert Counters(**nothing | after).lost_pages_since(before) == pages


def test_what_all_live_cgroups_lost(tree: Tree) -> None:
    tree.add("/p", {"cache": MIB, "pgpgout": 500}, cache=MIB)
    tree.add("/p/a", {"cache": MIB, "pgpgout": 400}, cache=MIB)  # what is dying below it is nobody's
    tree.add("/p/a/b", cache=MIB)
    before = live_tree(tree, "/p")
    tree.set("/p", pgpgout=256)
    tree.set("/p/a", {"pgpgout": 900}, cache=MIB)
    tree.set("/p/a/b", cache=MIB - 8192, pgpgout=2)
    tree.add("/p/born", pgpgout=100)
    assert live_tree(tree, "/p").lost_pages_since(before) == 256 + 2


def test_what_is_nested_too_deep_counts_as_live(tree: Tree) -> None:
    path = ""
    for _ in range(MAX_DEPTH + 3):
        path += "/d"
        tree.add(path, {"cache": 10 * MIB})
    assert all(each.residue(1).file_bytes == 0 for each in live_tree(tree, "/d").walk())


@pytest.mark.parametrize(
    ("file", "text"),
    [("memory.stat", "cache 1\n"), ("memory.stat", ""), ("memory.usage_in_bytes", "much\n")],
)
def test_nonsense_is_named(tree: Tree, file: str, text: str) -> None:
    (tree.add("/a") / file).write_text(text)
    with tree.hierarchy.open("/a") as cgroup, pytest.raises(BadReading, match=f"/a: {file}"):
        (read_stat if file == "memory.stat" else usage_bytes)(cgroup)


def test_each_residue_has_the_count_of_all_and_none_counts_twice(tree: Tree, proc: Path) -> None:
    tree.add("/in", {"cache": 2 * MIB})
    tree.add("/in/below", {"cache": MIB})
    tree.add("/out", {"cache": MIB})
    ours = V1Backend(tree.hierarchy, FEATURES, Ledger(proc), roots=("/in", "/missing"), proc=proc)
    assert [(each.path, each.file_bytes, each.dying) for each in ours.residues()] == [
        ("/in/below", MIB, 103),
        ("/in", MIB, 103),
    ]
    assert ours.total_dying() == 103


def test_a_reading_for_a_decision(tree: Tree, proc: Path) -> None:
    tree.add("/p", {"cache": 2 * MIB})
    tree.add("/p/live", cache=MIB, rss=4096)
    ours = V1Backend(tree.hierarchy, FEATURES, Ledger(proc), proc=proc)
    reading = ours.read("/p")
    assert (reading.shields, reading.refuses_swap, reading.swap_on, reading.own_pages) == (
        *(False, False, True, False),
    )
    assert (reading.live_children, reading.live_bytes) == (1, MIB + 4096)
    assert ours.read("/").own_pages
    ending = ours.read_ending("/p")
    assert (ending.residue.file_bytes, ending.shields) == (2 * MIB, False)
    with pytest.raises(CgroupGone):
        ours.read("/gone")


def test_outside_the_roots_nothing_is_done(tree: Tree, proc: Path) -> None:
    tree.add("/out", {"cache": MIB})
    tree.add("/in")
    ours = V1Backend(tree.hierarchy, FEATURES, Ledger(proc), roots=("/in",), proc=proc)
    plan = Reclaim(max_bytes=MIB, keep_mapped=False, window_usec=1, write_usec=1, reason="")
    with pytest.raises(ValueError, match="outside the configured roots"):
        ours.reclaim(ours.read("/out").residue, plan, lambda: False)
    with pytest.raises(CgroupGone):
        ours.nearest_live("/out")


def test_what_a_window_would_write(tree: Tree, proc: Path) -> None:
    tree.add("/p", {"cache": MIB})
    ours = V1Backend(tree.hierarchy, FEATURES, Ledger(proc), proc=proc)
    plan = Reclaim(max_bytes=MIB, keep_mapped=False, window_usec=20_000, write_usec=10_000, reason="")
    planned = ours.plan(ours.read("/p").residue, plan)
    write = PlannedWrite(path="/p", file="memory.force_empty", value="0", purpose=Purpose.RECLAIM)
    assert planned == [write, write]
    assert (tree.directory("/p") / "memory.force_empty").read_text() == ""


# Which backend


def chosen(tree: Tree, proc: Path, tmp_path: Path) -> tuple[Mode, str]:
    ours = choose(tree.hierarchy, Ledger(tmp_path / "run"), proc=proc, sys=tmp_path / "sys")
    return ours.mode, ours.reason


def test_the_mode_and_its_reason(
    tree: Tree, proc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mode, reason = chosen(tree, proc, tmp_path)
    assert (mode, "only a part of the cgroup v1 hierarchy is mounted" in reason) == (Mode.OBSERVE, True)
    monkeypatch.setattr(Hierarchy, "whole", True)
    mode, reason = chosen(tree, proc, tmp_path)
    assert (mode, "only where reclaim.shared is on" in reason) == (Mode.SHARED, True)
    (tree.directory("/") / "memory.force_empty").unlink()
    mode, reason = chosen(tree, proc, tmp_path)
    assert (mode, "no memory.force_empty" in reason) == (Mode.OBSERVE, True)
    (proc / "kallsyms").write_text("0000000000000000 t lru_reparent_memcg\n")
    mode, reason = chosen(tree, proc, tmp_path)
    assert (mode, "heals itself" in reason) == (Mode.OBSERVE, True)


def test_a_part_of_a_hierarchy_is_not_counted_by_guess(tree: Tree, proc: Path, tmp_path: Path) -> None:
    ours = choose(tree.hierarchy, Ledger(tmp_path / "run"), proc=proc, sys=tmp_path / "sys")
    assert isinstance(ours, ObserveBackend)
    with pytest.raises(Unsupported, match="only a part of the cgroup v1 hierarchy is mounted"):
        ours.total_dying()


def test_outside_the_main_thread_it_observes(
    tree: Tree, proc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hierarchy, "whole", True)
    found: list[tuple[Mode, str]] = []
    thread = threading.Thread(target=lambda: found.append(chosen(tree, proc, tmp_path)))
    thread.start()
    thread.join()
    [(mode, reason)] = found
    assert (mode, "only by the main thread" in reason) == (Mode.OBSERVE, True)
