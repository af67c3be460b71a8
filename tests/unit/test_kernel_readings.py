"""What is read from kernel files, on files of our own: layouts, absences and nonsense."""

from __future__ import annotations

from pathlib import Path

import pytest

from logindguard.kernel.backend import Backend
from logindguard.kernel.cgroupfs import (
    MAX_DEPTH,
    BadReading,
    Cgroup,
    CgroupGone,
    Hierarchy,
    KernelRefused,
    Unsupported,
    detect,
    join,
    within,
)
from logindguard.kernel.choose import choose
from logindguard.kernel.cost import MAX_WRITE_BYTES, MIN_WRITE_BYTES, WriteCost
from logindguard.kernel.features import file_contains, probe
from logindguard.kernel.ledger import Ledger
from logindguard.kernel.observe import ObserveBackend, ObserveV2
from logindguard.kernel.pressure import read_host_memory, some_percent
from logindguard.kernel.residue import Family, dying_directly, walk
from logindguard.kernel.shield import Shield
from logindguard.kernel.v2 import V2Backend
from logindguard.model import Mode, Outcome, Reclaim, Residue
from tests.unit.fake_cgroupfs import FakeTree

MIB = 1 << 20
KEY = "nr_dying_descendants"


@pytest.fixture
def tree(tmp_path: Path) -> FakeTree:
    (tmp_path / "cgroup").mkdir()
    return FakeTree(tmp_path / "cgroup")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    proc = tmp_path / "proc"
    (proc / "pressure").mkdir(parents=True)
    (proc / "self").mkdir()
    (proc / "meminfo").write_text("MemTotal: 2048 kB\nMemAvailable:    1024 kB\nSwapTotal:       0 kB\n")
    (proc / "pressure/memory").write_text(
        "some avg10=12.34 avg60=0.00 avg300=0.00 total=7\nfull avg10=1.00 avg60=0.00 avg300=0.00 total=7\n"
    )
    (proc / "kallsyms").write_text("0000000000000000 T mem_cgroup_iter\n")
    return proc


# Where the memory controller is


def mountinfo(proc: Path, *lines: str) -> Path:
    (proc / "self/mountinfo").write_bytes("".join(f"{line}\n" for line in lines).encode())
    return proc


ROOT = "1 0 8:1 / / rw - ext4 /dev/vda rw"


NO_LINE_ENDS = ("\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028")
"""To Python they are; the kernel lets them stand in the names that users give."""


@pytest.mark.parametrize("odd", NO_LINE_ENDS)
def test_who_may_mount_cannot_hide_the_hierarchy(proc: Path, tmp_path: Path, odd: str) -> None:
    fuse = f"40 1 0:50 / /home/alice/a{odd}b rw - fuse.x x{odd}y rw,user_id=1000"
    v1 = f"30 1 0:26 / {tmp_path} rw - cgroup cgroup rw,memory"
    assert detect(mountinfo(proc, ROOT, fuse, v1)) == Hierarchy(1, tmp_path, frozenset({"rw", "memory"}))


def test_detects_v2_with_its_options(proc: Path, tmp_path: Path) -> None:
    mount = tmp_path / "cg"
    mount.mkdir()
    (mount / "cgroup.controllers").write_text("cpu io memory\n")
    line = f"30 1 0:26 / {mount} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot"
    found = detect(mountinfo(proc, ROOT, line))
    assert found == Hierarchy(2, mount, frozenset({"rw", "nsdelegate", "memory_recursiveprot"}))


def test_detects_v1_before_an_empty_v2(proc: Path) -> None:
    found = detect(
        mountinfo(
            proc,
            ROOT,
            "30 1 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
            "31 1 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
        )
    )
    assert found is not None
    assert (found.version, found.mount) == (1, Path("/sys/fs/cgroup/memory"))


def test_detects_that_there_is_none(proc: Path, tmp_path: Path) -> None:
    assert detect(mountinfo(proc, ROOT)) is None
    (tmp_path / "cgroup.controllers").write_text("cpu io\n")
    assert detect(mountinfo(proc, ROOT, f"30 1 0:26 / {tmp_path} rw - cgroup2 cgroup2 rw")) is None


def test_a_mount_point_with_a_space(proc: Path, tmp_path: Path) -> None:
    mount = tmp_path / "c g"
    mount.mkdir()
    (mount / "cgroup.controllers").write_text("memory\n")
    line = f"30 1 0:26 / {str(mount).replace(' ', chr(92) + '040')} rw - cgroup2 cgroup2 rw"
    found = detect(mountinfo(proc, line))
    assert found is not None
    assert found.mount == mount


# Handles


@pytest.mark.parametrize("path", ["", "a", "/a/../b", "/./a", "/a//b", "//a"])
def test_what_is_not_a_cgroup_path(tree: FakeTree, path: str) -> None:
    with pytest.raises(ValueError, match="not a cgroup path"):
        tree.hierarchy.open(path)


def test_a_symlink_is_not_followed(tree: FakeTree, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tree.hierarchy.mount / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CgroupGone):
        tree.hierarchy.open("/link")
    with tree.hierarchy.open("/") as cgroup:
        assert "link" not in cgroup.child_names()


def test_gone_is_told_from_not_there(tree: FakeTree) -> None:
    tree.add("/a")
    with tree.hierarchy.open("/a") as cgroup:
        (tree.directory("/a") / "memory.reclaim").unlink()
        with pytest.raises(Unsupported, match=r"/a: memory\.reclaim: this kernel has no such file"):
            cgroup.write("memory.reclaim", "0")
        tree.remove("/a")
        with pytest.raises(CgroupGone):
            cgroup.memory_current()
        assert not cgroup.alive()
    assert tree.hierarchy.inode_of("/a") is None
    assert tree.hierarchy.nearest_live("/a/b/c") == "/"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("memory.current", "many\n"),
        ("memory.current", "-5\n"),
        ("memory.current", ""),
        ("cgroup.stat", "nr_descendants 0\n"),
        ("cgroup.stat", f"{KEY} few\n"),
        ("memory.stat", "anon 1\n"),
        ("memory.stat", ""),
    ],
)
def test_nonsense_is_named(tree: FakeTree, file: str, text: str) -> None:
    (tree.add("/a") / file).write_text(text)
    with tree.hierarchy.open("/a") as cgroup, pytest.raises(BadReading, match=f"/a: {file}"):
        {
            "memory.current": cgroup.memory_current,
            "cgroup.stat": cgroup.dying,
            "memory.stat": cgroup.memory_stat,
        }[file]()


def test_limits(tree: FakeTree) -> None:
    (tree.add("/a") / "memory.max").write_text("4096\n")
    with tree.hierarchy.open("/a") as cgroup:
        assert cgroup.memory_limit("memory.max") == 4096
        assert cgroup.memory_limit("memory.high") is None


def test_paths_by_whole_components() -> None:
    assert within("/a/b", "/a")
    assert within("/a", "/a")
    assert within("/a", "/")
    assert not within("/ab", "/a")
    assert join("/", "a") == "/a"
    assert join("/a", "b") == "/a/b"


# Counting


def test_residues_hang_under_their_nearest_live_parent(tree: FakeTree) -> None:
    tree.set("/", dying=17)
    tree.add("/user.slice", dying=12)
    tree.add("/user.slice/user-1.slice", dying=5)
    tree.add("/user.slice/user-2.slice")
    tree.add("/system.slice", dying=3)
    with tree.hierarchy.open("/") as cgroup:
        found = {residue.path: residue.dying for residue in walk(cgroup, KEY)}
        assert dying_directly(cgroup, KEY) == 2
    assert found == {"/user.slice/user-1.slice": 5, "/user.slice": 7, "/system.slice": 3, "/": 2}


def test_what_has_nothing_dying_is_not_walked(tree: FakeTree) -> None:
    tree.set("/", dying=2)
    tree.add("/dying", dying=2)
    tree.add("/clean")
    (tree.add("/clean/below") / "cgroup.stat").write_text("not to be read")
    with tree.hierarchy.open("/") as cgroup:
        assert [residue.path for residue in walk(cgroup, KEY)] == ["/dying"]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths and names of the control files that are read from now on."""
    found: list[str] = []
    read = Cgroup.read

    def noted(cgroup: Cgroup, file: str) -> str:
        found.append(f"{cgroup.path.rstrip('/')}/{file}")
        return read(cgroup, file)

    monkeypatch.setattr(Cgroup, "read", noted)
    return found


def host_of(tree: FakeTree, tmp_path: Path, users: int) -> V2Backend:
    """Each user with a slice, a manager and a session below it, where nothing is dying yet."""
    tree.add("/user.slice")
    for uid in range(users):
        tree.add(f"/user.slice/user-{uid}.slice")
        tree.add(f"/user.slice/user-{uid}.slice/user@{uid}.service")
        tree.add(f"/user.slice/user-{uid}.slice/session-{uid}.scope")
    features = probe(tree.hierarchy, sys=tmp_path, proc=tmp_path)
    return V2Backend(tree.hierarchy, features, Ledger(tmp_path / "ledger"))


def test_nothing_dying_costs_one_read(tree: FakeTree, tmp_path: Path, reads: list[str]) -> None:
    backend = host_of(tree, tmp_path, 20)
    reads.clear()
    assert backend.total_dying() == 0
    assert reads == ["/cgroup.stat"]
    assert backend.residues() == []
    assert reads == ["/cgroup.stat"] * 2


def test_one_dying_costs_one_path_down(tree: FakeTree, tmp_path: Path, reads: list[str]) -> None:
    """The counts of what lies beside the path are read, and of nothing below that."""
    backend = host_of(tree, tmp_path, 20)
    path = "/user.slice/user-7.slice"
    for each in ("/", "/user.slice", path):
        tree.set(each, dying=1)
    reads.clear()
    assert [residue.path for residue in backend.residues()] == [path]
    beside = [f"/user.slice/user-{uid}.slice" for uid in range(20)]
    below = [f"{path}/user@7.service", f"{path}/session-7.scope"]
    counted = ["", "/user.slice", *beside, *below]
    assert sorted(reads) == sorted(f"{each}/cgroup.stat" for each in counted)


def test_more_live_children_than_are_shielded_are_not_read(
    tree: FakeTree, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = host_of(tree, tmp_path, 3)
    tree.set("/user.slice", dying=1, file=MIB)
    monkeypatch.setattr("logindguard.kernel.v2.MAX_SHIELDED", 2)
    reads.clear()
    reading = backend.read("/user.slice")
    assert (reading.live_children, reading.residue.dying) == (3, 1)
    assert not [each for each in reads if each.startswith("/user.slice/user-")]


def test_a_residue_is_the_parent_less_its_live_children(tree: FakeTree) -> None:
    tree.set("/", dying=1, file=100 * MIB, file_mapped=9 * MIB, shmem=MIB, file_dirty=3)
    tree.add("/a", file=60 * MIB, file_mapped=2 * MIB, file_dirty=5)
    tree.add("/b", file=10 * MIB, pgsteal=4)
    with tree.hierarchy.open("/") as cgroup:
        family = Family.read(cgroup)
        residue = family.residue("/", cgroup.inode, 1)
        assert residue.file_bytes == 30 * MIB
        assert residue.mapped_bytes == 7 * MIB
        assert residue.dirty_bytes == 0  # less than nothing is nothing
        assert residue.clean_unmapped_bytes == 22 * MIB
        tree.set("/b", dying=0, pgsteal=9)
        tree.add("/late", pgsteal=2)
        late = Family.read(cgroup)
        assert late.lost_since(family) == sum(late.stolen_since(family).values()) == 7
        assert late.stolen_since(family, {"/b": 4, "/late": 9}.__getitem__) == {"/b": 1}
        tree.remove("/b")
        gone = Family.read(cgroup)
        assert (
            gone.lost_since(family, {"/b": 4}.__getitem__) == 4 + 2
        )  # what it gave is in its parent's count
        assert gone.lost_since(gone, {"/b": 4}.__getitem__) == 0


# Readings for a decision


def backend(tree: FakeTree, proc: Path, tmp_path: Path, *roots: str) -> V2Backend:
    (tree.hierarchy.mount / "memory.reclaim").touch()
    ledger = Ledger(tmp_path / "run")
    ledger.prepare()
    features = probe(tree.hierarchy, "/", proc=proc, sys=tmp_path / "sys")
    return V2Backend(tree.hierarchy, features, ledger, roots=roots, proc=proc)


def test_headroom_is_that_of_the_tightest_ancestor(tree: FakeTree, proc: Path, tmp_path: Path) -> None:
    (tree.add("/a", current=60 * MIB) / "memory.max").write_text(str(100 * MIB))
    (tree.add("/a/b", current=5 * MIB) / "memory.high").write_text(str(50 * MIB))
    tree.add("/a/b/c")
    ours = backend(tree, proc, tmp_path)
    assert ours.read("/a/b/c").headroom_bytes == 40 * MIB
    assert ours.read("/").headroom_bytes is None


def test_own_pages(tree: FakeTree, proc: Path, tmp_path: Path) -> None:
    for name in ("a.slice", "a.service", "a.scope"):
        tree.add(f"/{name}", dying=1)
    ours = backend(tree, proc, tmp_path)
    assert not ours.read("/a.slice").own_pages
    assert ours.read("/a.service").own_pages
    assert ours.read("/a.scope").own_pages
    assert ours.read("/").own_pages
    (tree.directory("/a.slice") / "cgroup.subtree_control").write_text("pids\n")
    assert ours.read("/a.slice").own_pages
    (tree.directory("/a.slice") / "cgroup.events").write_text("populated 0\n")
    assert not ours.read("/a.slice").own_pages


def test_roots_confine(tree: FakeTree, proc: Path, tmp_path: Path) -> None:
    tree.add("/in", dying=2)
    tree.add("/out", dying=3)
    ours = backend(tree, proc, tmp_path, "/in", "/missing")
    assert ours.total_dying() == 2
    assert [residue.path for residue in ours.residues()] == ["/in"]
    plan = Reclaim(max_bytes=MIB, keep_mapped=False, window_usec=1, write_usec=1, reason="")
    with pytest.raises(ValueError, match="outside the configured roots"):
        ours.reclaim(ours.read("/out").residue, plan, lambda: False)


def test_a_window_first_puts_back_what_an_older_one_left(tree: FakeTree, proc: Path, tmp_path: Path) -> None:
    """Its own ledger would write over those entries, and their values would stay for good."""
    tree.add("/a", dying=1, file=MIB)
    tree.add("/a/n")
    ours = backend(tree, proc, tmp_path)
    with tree.hierarchy.open("/") as target:
        Shield(ours._ledger, target, recursiveprot=True, margin_bytes=64 * MIB).raise_()
    assert int(tree.memory_min("/a")) > 64 * MIB
    plan = Reclaim(max_bytes=MIB, keep_mapped=False, window_usec=1, write_usec=1, reason="")
    window = ours.reclaim(ours.read("/a").residue, plan, lambda: False)
    assert (window.writes, window.shielded) == (1, 1)
    assert tree.memory_min("/a") == "0"
    assert tree.memory_min("/a/n") == "0"
    assert ours._ledger.entries() == []


def test_a_failure_after_some_writes_is_told_with_them(
    tree: FakeTree, proc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.add("/a", dying=1, file=64 * MIB)
    ours = backend(tree, proc, tmp_path)
    raise_, calls = Shield.raise_, [0]

    def fail_the_third(shield: Shield) -> None:
        calls[0] += 1
        if calls[0] == 3:
            raise KernelRefused("/a/n", "memory.min", OSError(24, "EMFILE"))
        raise_(shield)

    monkeypatch.setattr(Shield, "raise_", fail_the_third)
    plan = Reclaim(max_bytes=64 * MIB, keep_mapped=False, window_usec=10**7, write_usec=1, reason="")
    window = ours.reclaim(ours.read("/a").residue, plan, lambda: False)
    assert (window.outcome, window.writes) == (Outcome.FAILED, 2)
    assert window.reason == "/a/n: memory.min: Too many open files"


def test_users_may_nest_as_deep_as_they_like(tree: FakeTree, proc: Path, tmp_path: Path) -> None:
    tree.set("/", dying=1)
    path = ""
    for _ in range(MAX_DEPTH + 10):
        path += "/d"
        tree.add(path, dying=1)
    ours = backend(tree, proc, tmp_path)
    assert ours.residues() == []
    assert ours.total_dying() == 1


def test_what_a_shield_holds_back_is_no_room(tree: FakeTree, proc: Path, tmp_path: Path) -> None:
    (proc / "meminfo").write_text("MemFree: 1024 kB\nMemAvailable: 512000 kB\nSwapTotal: 0 kB\n")
    tree.add("/a", dying=1, file=480 * MIB)
    tree.add("/a/n", file=470 * MIB)
    assert backend(tree, proc, tmp_path).read("/a").available_bytes == 30 * MIB
    tree.set("/a/n", dying=0, file=600 * MIB)
    assert backend(tree, proc, tmp_path).read("/a").available_bytes == MIB


def test_where_everything_was_removed_up_to_the_roots(tree: FakeTree, proc: Path, tmp_path: Path) -> None:
    tree.add("/in")
    ours = backend(tree, proc, tmp_path, "/in/deeper")
    with pytest.raises(CgroupGone):
        ours.nearest_live("/in/deeper/session-1.scope")
    tree.add("/in/deeper")
    assert ours.nearest_live("/in/deeper/session-1.scope") == "/in/deeper"


def test_a_cgroup_that_is_no_memcg(tree: FakeTree, proc: Path, tmp_path: Path) -> None:
    directory = tree.add("/a", dying=1)
    (directory / "cgroup.controllers").write_text("pids\n")
    for name in ("memory.max", "memory.high", "memory.stat", "memory.min"):
        (directory / name).unlink()
    assert backend(tree, proc, tmp_path).read("/a").own_pages


def test_host_memory(proc: Path) -> None:
    host = read_host_memory(proc)
    assert (host.available_bytes, host.swap_on, host.memory_some_percent) == (MIB, False, 12.34)
    (proc / "pressure/memory").unlink()
    assert some_percent("memory", proc) is None
    (proc / "meminfo").write_text("SwapTotal: 8 kB\n")
    assert read_host_memory(proc).swap_on


# Features and the choice of a backend


def test_symbols_are_found_across_the_pieces_that_are_read(tmp_path: Path) -> None:
    file = tmp_path / "btf"
    needle = b"\0lru_reparent_memcg\0"
    for offset in (0, (1 << 16) - 5, (1 << 17) - 1):
        file.write_bytes(b"x" * offset + needle + b"y" * 100)
        assert file_contains(file, needle)
    file.write_bytes(b"\0lru_reparent_memcgs\0")
    assert file_contains(file, needle) is False
    assert file_contains(tmp_path / "missing", needle) is None


def chosen(tree: FakeTree, proc: Path, tmp_path: Path) -> tuple[Mode, str]:
    ours = choose(tree.hierarchy, Ledger(tmp_path / "run"), proc=proc, sys=tmp_path / "sys")
    return ours.mode, ours.reason


def test_the_backend_and_its_reason(tree: FakeTree, proc: Path, tmp_path: Path) -> None:
    assert chosen(tree, proc, tmp_path) == (Mode.PRECISE, "memory.reclaim with a shield of memory.min")
    (proc / "kallsyms").write_text("0000000000000000 t lru_reparent_memcg\n")
    mode, reason = chosen(tree, proc, tmp_path)
    assert (mode, "heals itself" in reason) == (Mode.OBSERVE, True)
    (proc / "kallsyms").unlink()
    (tree.hierarchy.mount / "memory.reclaim").unlink()
    mode, reason = chosen(tree, proc, tmp_path)
    assert (mode, "no memory.reclaim" in reason) == (Mode.OBSERVE, True)


def test_mglru_and_the_swappiness_word(tree: FakeTree, proc: Path, tmp_path: Path) -> None:
    enabled = tmp_path / "sys/kernel/mm/lru_gen/enabled"
    enabled.parent.mkdir(parents=True)
    enabled.write_text("0x0007\n")
    features = probe(tree.hierarchy, "/", proc=proc, sys=tmp_path / "sys")
    assert features.mglru
    assert features.swappiness_word  # a plain file takes any word
    assert features.reparents_lru is False
    assert "mglru" in features.words()


def test_observing_counts_on_v1(tmp_path: Path, proc: Path) -> None:
    for name in ("a", "a/b"):
        (tmp_path / "v1" / name).mkdir(parents=True)
    (proc / "cgroups").write_text("#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t4\t10\t1\n")
    ours = ObserveBackend(Hierarchy(1, tmp_path / "v1"), "cgroup v1", proc=proc)
    assert ours.total_dying() == 7
    assert ours.residues() == []


@pytest.mark.parametrize("version", [1, 2])
def test_observing_reclaims_nothing_and_says_why(tree: FakeTree, tmp_path: Path, version: int) -> None:
    """Whoever asks, by hand too: no file is written to."""
    directory = tree.add("/a", dying=3, file=MIB)
    (directory / "cgroup.procs").write_text("")
    before = {file.name: file.read_text() for file in directory.iterdir()}
    ours: Backend
    if version == 2:
        features = probe(tree.hierarchy, "/", proc=tmp_path, sys=tmp_path)
        ours = ObserveV2(tree.hierarchy, features, Ledger(tmp_path / "run"), "it heals itself")
        residue = ours.read("/a").residue
    else:
        ours = ObserveBackend(Hierarchy(1, tree.hierarchy.mount), "it heals itself", counts=False)
        residue = Residue(path="/a", inode=directory.stat().st_ino, dying=3)
        for asked in (ours.read, ours.read_ending):
            with pytest.raises(Unsupported, match="it heals itself"):
                asked("/a")
        with pytest.raises(Unsupported, match="it heals itself"):
            ours.total_dying()
    plan = Reclaim(max_bytes=MIB, keep_mapped=False, window_usec=1_000, write_usec=1_000, reason="a test")
    for act in (ours.reclaim, ours.reclaim_ending):
        with pytest.raises(Unsupported, match="it heals itself"):
            act(residue, plan, lambda: False)
    assert ours.plan(residue, plan) == []
    assert ours.nearest_live("/a/gone") == "/a"
    assert {file.name: file.read_text() for file in directory.iterdir()} == before


# The cost of writes


def test_write_size_follows_the_kernel_time() -> None:
    cost = WriteCost()
    for _ in range(50):
        cost.learn(wrote_bytes=MIB, dying=0, took_usec=4_000)
    assert cost.fitting_bytes(4_000) == pytest.approx(MIB, rel=0.05)
    for _ in range(50):
        cost.learn(wrote_bytes=MIB, dying=0, took_usec=10)
    assert cost.fitting_bytes(4_000) == MAX_WRITE_BYTES
    for _ in range(50):
        cost.learn(wrote_bytes=MIB, dying=0, took_usec=10_000_000)
    assert cost.fitting_bytes(4_000) == MIN_WRITE_BYTES


def test_walks_are_predicted_from_the_dying_count() -> None:
    cost = WriteCost()
    for _ in range(50):
        cost.learn(wrote_bytes=4096, dying=10_000, took_usec=100_000)
    assert cost.walk_usec(20_000) == pytest.approx(200_000, rel=0.05)
    assert cost.walk_usec(10) == 0
