"""The shield and its ledger; on the real cgroupfs too where these run inside a virtual machine."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from logindguard.kernel.cgroupfs import (
    PAGE_BYTES,
    Cgroup,
    CgroupGone,
    KernelError,
    KernelRefused,
    Unsupported,
)
from logindguard.kernel.ledger import Entry, Ledger, LedgerBusy, LedgerError
from logindguard.kernel.shield import Restored, Shield, put_back, restore
from tests.kernel.conftest import Tree
from tests.unit.fake_cgroupfs import FakeTree

MARGIN_BYTES = 64 << 20


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "run")
    ledger.prepare()
    return ledger


def shield(ledger: Ledger, target: Cgroup, *, recursiveprot: bool = True) -> Shield:
    return Shield(ledger, target, recursiveprot=recursiveprot, margin_bytes=MARGIN_BYTES)


def killed(ledger: Ledger, target: Cgroup) -> None:
    """What SIGKILL leaves of an open window: values raised, ledger full, lock free."""
    shield(ledger, target).raise_()


def test_raises_live_children_and_puts_back(tree: Tree, ledger: Ledger) -> None:
    for name in ("a", "b"):
        tree.add(f"/{name}")
    (tree.directory("/b") / "memory.min").write_text("4096")
    with tree.hierarchy.open("/") as target, shield(ledger, target) as raised:
        raised.raise_()
        assert int(tree.memory_min("/a")) >= MARGIN_BYTES
        assert int(tree.memory_min("/b")) >= MARGIN_BYTES
        assert {entry.path for entry in ledger.entries()} == {"/a", "/b"}
        assert len(raised) == 2
    assert (tree.memory_min("/a"), tree.memory_min("/b")) == ("0", "4096")
    assert ledger.entries() == []


def test_one_child_is_covered_alone(tree: Tree, ledger: Ledger) -> None:
    for name in ("a", "b"):
        tree.add(f"/{name}")
    with tree.hierarchy.open("/") as target, shield(ledger, target) as raised:
        raised.cover("b")
        raised.cover("gone by now")
        assert tree.memory_min("/a") == "0"
        assert int(tree.memory_min("/b")) >= MARGIN_BYTES
        assert [entry.path for entry in ledger.entries()] == ["/b"]
        raised.raise_()
        assert int(tree.memory_min("/a")) >= MARGIN_BYTES
    assert (tree.memory_min("/a"), tree.memory_min("/b")) == ("0", "0")


def test_covers_twice_the_usage(tmp_path: Path, ledger: Ledger) -> None:
    (tmp_path / "cgroup").mkdir()
    tree = FakeTree(tmp_path / "cgroup")
    tree.add("/a", current=100 << 20)
    with tree.hierarchy.open("/") as target, shield(ledger, target) as raised:
        raised.raise_()
        assert int(tree.memory_min("/a")) == (200 << 20) + MARGIN_BYTES + PAGE_BYTES


def test_a_usage_that_cannot_be_is_put_back_all_the_same(tmp_path: Path, ledger: Ledger) -> None:
    (tmp_path / "cgroup").mkdir()
    tree = FakeTree(tmp_path / "cgroup")
    tree.add("/a", current=(1 << 63) - 4096)
    with tree.hierarchy.open("/") as target, shield(ledger, target) as raised:
        raised.raise_()
        raised.raise_()
        assert 1 << 60 <= int(tree.memory_min("/a")) < 1 << 61
    assert tree.memory_min("/a") == "0"


def test_late_born_are_covered_by_the_next_call(tree: Tree, ledger: Ledger) -> None:
    tree.add("/a")
    with tree.hierarchy.open("/") as target, shield(ledger, target) as raised:
        raised.raise_()
        tree.add("/late")
        raised.raise_()
        assert int(tree.memory_min("/late")) >= MARGIN_BYTES
    assert tree.memory_min("/late") == "0"


def test_what_outgrows_its_shield_is_covered_anew(tmp_path: Path, ledger: Ledger) -> None:
    (tmp_path / "cgroup").mkdir()
    tree = FakeTree(tmp_path / "cgroup")
    current = tree.add("/a") / "memory.current"
    with tree.hierarchy.open("/") as target, shield(ledger, target) as raised:
        raised.raise_()
        assert int(tree.memory_min("/a")) == MARGIN_BYTES + PAGE_BYTES
        current.write_text(str(300 << 20))
        raised.raise_()
        assert int(tree.memory_min("/a")) == (600 << 20) + MARGIN_BYTES + PAGE_BYTES
        assert [entry.old_bytes for entry in ledger.entries()] == [0, 0]  # SIGKILL may come in between
        assert len(raised) == 1
    assert tree.memory_min("/a") == "0"
    with tree.hierarchy.open("/") as target:
        killed(ledger, target)
        assert restore(tree.hierarchy, ledger).restored == 1
    assert tree.memory_min("/a") == "0"


@pytest.mark.parametrize("own", ["max", str(1 << 30)])
def test_a_larger_value_of_the_administrator_stands(tree: Tree, ledger: Ledger, own: str) -> None:
    (tree.add("/a") / "memory.min").write_text(own)
    with tree.hierarchy.open("/") as target, shield(ledger, target) as raised:
        raised.raise_()
        assert tree.memory_min("/a") == own
        assert ledger.entries() == []
    assert tree.memory_min("/a") == own


def test_a_value_written_meanwhile_stands(tree: Tree, ledger: Ledger) -> None:
    tree.add("/a")
    with tree.hierarchy.open("/") as target, shield(ledger, target) as raised:
        raised.raise_()
        (tree.directory("/a") / "memory.min").write_text("8192")
    assert tree.memory_min("/a") == "8192"


def test_a_value_written_meanwhile_is_covered_and_put_back(tree: Tree, ledger: Ledger) -> None:
    """Else live page cache would be reclaimed from there on; and never the value from before it."""
    tree.add("/a")
    for end in ("lower", "restore"):
        (tree.directory("/a") / "memory.min").write_text("0")
        with tree.hierarchy.open("/") as target:
            raised = shield(ledger, target)
            raised.raise_()
            (tree.directory("/a") / "memory.min").write_text("8192")  # as systemd does at a daemon-reload
            raised.raise_()
            assert int(tree.memory_min("/a")) >= MARGIN_BYTES
            assert [entry.old_bytes for entry in ledger.entries()] == [0, 8192]
            if end == "lower":
                raised.lower()
            else:
                assert restore(tree.hierarchy, ledger) == Restored(restored=1, not_ours=1)
        assert tree.memory_min("/a") == "8192"


def test_a_value_written_between_our_look_and_our_write_stands(
    tree: Tree, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.add("/a")
    write = Ledger.write
    once = ["8192"]

    def slow(ledger: Ledger, entries: list[Entry]) -> None:
        write(ledger, entries)
        if entries and once:
            (tree.directory("/a") / "memory.min").write_text(once.pop())

    monkeypatch.setattr(Ledger, "write", slow)
    with tree.hierarchy.open("/") as target, shield(ledger, target) as raised:
        raised.raise_()
        assert int(tree.memory_min("/a")) >= MARGIN_BYTES
    assert tree.memory_min("/a") == "8192"


@pytest.mark.parametrize("populated", [False, True])
def test_one_that_loses_its_files_in_the_midst(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, populated: bool
) -> None:
    """An rmdir takes them before the directory; where processes live, the controller was taken away."""
    (tmp_path / "cgroup").mkdir()
    tree = FakeTree(tmp_path / "cgroup")
    directory = tree.add("/a")
    (directory / "cgroup.events").write_text(f"populated {populated:d}\n")
    write = Ledger.write

    def slow(ledger: Ledger, entries: list[Entry]) -> None:
        write(ledger, entries)
        (directory / "memory.min").unlink(missing_ok=True)

    monkeypatch.setattr(Ledger, "write", slow)
    with tree.hierarchy.open("/") as target:
        raised = shield(ledger, target)
        if populated:
            with pytest.raises(Unsupported):
                raised.raise_()
        else:
            raised.raise_()


def test_who_changes_it_all_the_time_ends_the_window(
    tree: Tree, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.add("/a")
    write = Ledger.write
    values = iter(range(1, 100))

    def slow(ledger: Ledger, entries: list[Entry]) -> None:
        write(ledger, entries)
        (tree.directory("/a") / "memory.min").write_text(str(next(values) * PAGE_BYTES))

    monkeypatch.setattr(Ledger, "write", slow)
    with (
        tree.hierarchy.open("/") as target,
        pytest.raises(KernelError, match="others change it"),
        shield(ledger, target) as raised,
    ):
        raised.raise_()
    assert int(tree.memory_min("/a")) < 100 * PAGE_BYTES


@pytest.mark.parametrize("own", ["0", str(64 << 20)])
def test_what_an_administrator_writes_by_hand_is_never_taken_for_ours(
    tree: Tree, ledger: Ledger, own: str
) -> None:
    tree.add("/a")
    with tree.hierarchy.open("/") as target:
        killed(ledger, target)
    (tree.directory("/a") / "memory.min").write_text(own)
    assert restore(tree.hierarchy, ledger) == Restored(not_ours=1)
    assert tree.memory_min("/a") == own


def test_a_removed_child_is_forgotten_and_its_path_left_alone(tree: Tree, ledger: Ledger) -> None:
    tree.add("/a")
    with tree.hierarchy.open("/") as target, shield(ledger, target) as raised:
        raised.raise_()
        value = tree.memory_min("/a")
        if isinstance(tree, FakeTree):
            tree.directory("/a").rename(tree.hierarchy.mount.parent / "a")  # a removed inode could come again
        else:
            tree.remove("/a")
        tree.add("/a")
        (tree.directory("/a") / "memory.min").write_text(value)  # even with our very value: not our cgroup
    assert tree.memory_min("/a") == value
    assert ledger.entries() == []


def test_without_recursiveprot_every_descendant_is_covered(tree: Tree, ledger: Ledger) -> None:
    for path in ("/a", "/a/b", "/a/b/c"):
        tree.add(path)
    with tree.hierarchy.open("/") as target, shield(ledger, target, recursiveprot=False) as raised:
        raised.raise_()
        assert {entry.path for entry in ledger.entries()} == {"/a", "/a/b", "/a/b/c"}
        assert all(int(tree.memory_min(path)) >= MARGIN_BYTES for path in ("/a", "/a/b", "/a/b/c"))
    assert all(tree.memory_min(path) == "0" for path in ("/a", "/a/b", "/a/b/c"))


def test_with_recursiveprot_the_children_are_enough(tree: Tree, ledger: Ledger) -> None:
    for path in ("/a", "/a/b"):
        tree.add(path)
    with tree.hierarchy.open("/") as target, shield(ledger, target) as raised:
        raised.raise_()
        assert tree.memory_min("/a/b") == "0"


def test_the_ledger_is_written_before_the_kernel(
    tree: Tree, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.add("/a")
    seen: list[tuple[str, int]] = []

    def look(cgroup: Cgroup, file: str, value: int | None) -> None:
        seen.append((tree.memory_min("/a"), len(ledger.entries())))

    with tree.hierarchy.open("/") as target, shield(ledger, target) as raised:
        monkeypatch.setattr(Cgroup, "set_memory_limit", look)
        raised.raise_()
        monkeypatch.undo()
    assert seen == [("0", 1)]


def test_a_refused_value_lowers_the_rest_and_stays_in_the_ledger(
    tree: Tree, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        tree.add(f"/{name}")
    write = Cgroup.set_memory_limit
    with tree.hierarchy.open("/") as target:
        raised = shield(ledger, target)
        raised.raise_()

        def refuse(cgroup: Cgroup, file: str, value: int | None) -> None:
            if cgroup.path == "/b":
                raise KernelRefused("/b", "memory.min", OSError(5, "I/O"))
            write(cgroup, file, value)

        monkeypatch.setattr(Cgroup, "set_memory_limit", refuse)
        with pytest.raises(KernelRefused, match=r"/b: memory\.min: Input/output error"):
            raised.lower()
        monkeypatch.undo()
    assert (tree.memory_min("/a"), tree.memory_min("/c")) == ("0", "0")
    assert [entry.path for entry in ledger.entries()] == ["/b"]
    assert restore(tree.hierarchy, ledger) == Restored(restored=1)
    assert tree.memory_min("/b") == "0"


def test_a_ledger_that_cannot_be_written_means_no_shield(tree: Tree, ledger: Ledger) -> None:
    tree.add("/a")
    (ledger.directory / "ledger.new").mkdir()  # what a rename needs is in the way
    with tree.hierarchy.open("/") as target, pytest.raises(LedgerError), shield(ledger, target) as raised:
        raised.raise_()
    assert tree.memory_min("/a") == "0"


# restore


def test_restore_after_a_kill(tree: Tree, ledger: Ledger) -> None:
    for name in ("a", "b", "gone"):
        tree.add(f"/{name}")
    with tree.hierarchy.open("/") as target:
        killed(ledger, target)
    tree.remove("/gone")
    (tree.directory("/b") / "memory.min").write_text("12288")
    assert restore(tree.hierarchy, ledger) == Restored(restored=1, not_ours=1, gone=1)
    assert (tree.memory_min("/a"), tree.memory_min("/b")) == ("0", "12288")
    assert ledger.entries() == []
    assert restore(tree.hierarchy, ledger) == Restored()


def test_restore_leaves_an_open_window_alone(tree: Tree, ledger: Ledger) -> None:
    tree.add("/a")
    with ledger.locked(), tree.hierarchy.open("/") as target, shield(ledger, target) as raised:
        raised.raise_()
        with pytest.raises(LedgerBusy, match="holds the lock"):
            restore(tree.hierarchy, Ledger(ledger.directory), timeout_sec=0.05)
        assert int(tree.memory_min("/a")) >= MARGIN_BYTES


def test_restore_waits_for_the_window_to_close(tree: Tree, ledger: Ledger) -> None:
    tree.add("/a")
    opened, close = threading.Event(), threading.Event()

    def window() -> None:
        with ledger.locked(), tree.hierarchy.open("/") as target, shield(ledger, target) as raised:
            raised.raise_()
            opened.set()
            close.wait(10)

    thread = threading.Thread(target=window)
    thread.start()
    assert opened.wait(10)
    threading.Timer(0.1, close.set).start()
    assert restore(tree.hierarchy, Ledger(ledger.directory)) == Restored()
    thread.join()
    assert tree.memory_min("/a") == "0"


def entries_of(name: str, *values: object) -> list[str]:
    """Ledgers of one entry, in which that field is none that a window writes."""
    entry = {"inode": 1, "path": "/a", "old_bytes": 0, "ours_bytes": 1}
    return [json.dumps([entry | {name: value}]) for value in values]


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[1]", '[{"inode": 1}]', '"x"', "[" * 100_000, "\udcff"),
        *entries_of("file", "../../../proc/sys/kernel/x", "memory.max", 1, [], ""),
        *entries_of("path", "a", "", "/../a", "/a/..", "/a//b", "/a\0b", 1, None),
        *entries_of("inode", "1", None, 1.5, True),
        *entries_of("old_bytes", "0", -1, 1.0, []),
        *entries_of("more", 1),
    ],
)
def test_a_strange_ledger_is_named(tree: Tree, ledger: Ledger, text: str) -> None:
    ledger.path.write_text(text, errors="surrogateescape")
    with pytest.raises(LedgerError, match="ledger"):
        restore(tree.hierarchy, ledger)


def test_another_cgroup_at_the_path_is_not_touched(tree: Tree) -> None:
    tree.add("/a")
    with tree.hierarchy.open("/a") as cgroup:
        entry = Entry(cgroup.inode + 1, "/a", 0, 4096)
        cgroup.set_memory_limit("memory.min", 4096)
        with pytest.raises(CgroupGone):
            put_back(cgroup, entry)
    assert tree.memory_min("/a") == "4096"


def test_the_ledgers_directory_must_be_ours_alone(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(LedgerError, match="writable by nobody else"):
        Ledger(tmp_path / "open").prepare()
    with pytest.raises(LedgerError, match="No such file"):
        Ledger(tmp_path / "missing" / "run").prepare()


def test_the_ledger_is_plain_json_that_an_administrator_can_read(tree: Tree, ledger: Ledger) -> None:
    tree.add("/a")
    with tree.hierarchy.open("/") as target:
        killed(ledger, target)
    [entry] = json.loads(ledger.path.read_text())
    assert entry["path"] == "/a"
    assert entry["inode"] == tree.directory("/a").stat().st_ino
    restore(tree.hierarchy, ledger)
