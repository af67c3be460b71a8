"""Swap forbidden for a moment, and SIGKILL in it; on the real cgroupfs too, be it v1 or v2."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from logindguard.kernel.cgroupfs import Hierarchy, KernelError, KernelRefused
from logindguard.kernel.ledger import Entry, Ledger, LedgerBusy
from logindguard.kernel.noswap import V1_FILE, V2_FILE, NoSwap
from logindguard.kernel.shield import Restored, restore
from tests.kernel.conftest import DETECTED, V1, V2
from tests.unit.fake_cgroupfs import FakeTree

REAL = ["real"] if V1 or V2 is not None else []


class Ground:
    """A cgroup of the test's own at PATH whose value is OLD, and what may forbid it to swap."""

    def __init__(self, hierarchy: Hierarchy, path: str, directory: Path, ledger: Ledger) -> None:
        self.hierarchy = hierarchy
        self.path = path
        self.ledger = ledger
        self.old = "40" if hierarchy.version == 1 else str(64 << 20)
        name = V1_FILE if hierarchy.version == 1 else V2_FILE
        self.no_swap = NoSwap(hierarchy, ledger, name)
        self.file = directory / name
        self.file.write_text(self.old)

    @property
    def value(self) -> str:
        return self.file.read_text().strip()

    def killed(self) -> None:
        """A process is killed while it holds the value down."""
        pid = os.fork()
        if pid == 0:
            try:
                with self.hierarchy.open(self.path) as cgroup, self.no_swap.on(cgroup, wait_sec=5):
                    os.kill(os.getpid(), signal.SIGKILL)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


@pytest.fixture(params=["fake", *REAL])
def ground(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ground]:
    ledger = Ledger(tmp_path / "run")
    ledger.prepare()
    if request.param == "fake":
        (tmp_path / "cgroup").mkdir()
        tree = FakeTree(tmp_path / "cgroup")
        yield Ground(tree.hierarchy, "/a", tree.add("/a"), ledger)
        return
    assert DETECTED is not None
    path = f"/lgtest-swap-{os.getpid()}"
    directory = DETECTED.mount / path.strip("/")
    directory.mkdir()
    try:
        yield Ground(DETECTED, path, directory, ledger)
    finally:
        with suppress(FileNotFoundError):
            directory.rmdir()


def test_the_value_is_put_back(ground: Ground) -> None:
    with ground.hierarchy.open(ground.path) as cgroup:
        assert ground.no_swap.possible(cgroup)
        with ground.no_swap.on(cgroup, wait_sec=5):
            assert ground.value == "0"
            [entry] = ground.ledger.entries()
            assert (entry.path, entry.old_bytes) == (ground.path, int(ground.old))
    assert (ground.value, ground.ledger.entries()) == (ground.old, [])


def test_a_value_written_meanwhile_stands(ground: Ground) -> None:
    with ground.hierarchy.open(ground.path) as cgroup, ground.no_swap.on(cgroup, wait_sec=5):
        ground.file.write_text("20480" if ground.hierarchy.version == 2 else "20")
        written = ground.value
    assert (ground.value, ground.ledger.entries()) == (written, [])


def written_after_our_look(ground: Ground, monkeypatch: pytest.MonkeyPatch, values: Iterator[str]) -> None:
    """Somebody writes each time that the ledger was written, which is right before the value is."""
    write = Ledger.write

    def slow(ledger: Ledger, entries: list[Entry]) -> None:
        write(ledger, entries)
        if entries and (value := next(values, "")):
            ground.file.write_text(value)

    monkeypatch.setattr(Ledger, "write", slow)


@pytest.mark.parametrize("another", [True, False], ids=["another", "zero"])
def test_a_value_written_between_our_look_and_our_write_stands(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, another: bool
) -> None:
    value = ("20480" if ground.hierarchy.version == 2 else "20") if another else "0"
    written_after_our_look(ground, monkeypatch, iter([value]))
    with ground.hierarchy.open(ground.path) as cgroup, ground.no_swap.on(cgroup, wait_sec=5):
        assert ground.value == "0"
        assert len(ground.ledger.entries()) == int(another)
    assert (ground.value, ground.ledger.entries()) == (value, [])


def test_who_changes_it_all_the_time_keeps_it(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = 4096 if ground.hierarchy.version == 2 else 1
    values = [str(n * unit) for n in range(1, 20)]
    written_after_our_look(ground, monkeypatch, iter(values))
    with (
        ground.hierarchy.open(ground.path) as cgroup,
        pytest.raises(KernelError, match="others change it"),
        ground.no_swap.on(cgroup, wait_sec=5),
    ):
        pytest.fail("the window was opened")
    assert ground.value in values
    assert ground.ledger.entries() == []


def test_restore_after_a_kill(ground: Ground) -> None:
    ground.killed()
    assert ground.value == "0"
    assert restore(ground.hierarchy, ground.ledger) == Restored(restored=1)
    assert (ground.value, ground.ledger.entries()) == (ground.old, [])


def test_the_next_one_after_a_kill_restores_first(ground: Ground) -> None:
    ground.killed()
    with ground.hierarchy.open(ground.path) as cgroup, ground.no_swap.on(cgroup, wait_sec=5):
        assert ground.value == "0"
    assert ground.value == ground.old


def test_a_cgroup_that_is_removed_meanwhile(ground: Ground) -> None:
    directory = ground.file.parent
    with ground.hierarchy.open(ground.path) as cgroup, ground.no_swap.on(cgroup, wait_sec=5):
        if directory.parent.name == "cgroup":  # the fake: plain files, which go one by one
            for file in directory.iterdir():
                file.unlink()
        directory.rmdir()
    assert ground.ledger.entries() == []


def test_what_the_kernel_does_not_take_back_stays_in_the_ledger(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> bool:
        raise KernelRefused(ground.path, ground.file.name, OSError(5, "I/O"))

    with ground.hierarchy.open(ground.path) as cgroup:
        with pytest.raises(KernelRefused), ground.no_swap.on(cgroup, wait_sec=5):
            monkeypatch.setattr("logindguard.kernel.noswap.put_back", refuse)
        monkeypatch.undo()
        [entry] = ground.ledger.entries()
        assert entry == Entry(cgroup.inode, ground.path, int(ground.old), 0, ground.file.name)
    assert restore(ground.hierarchy, ground.ledger) == Restored(restored=1)
    assert ground.value == ground.old


def test_nothing_is_changed_while_another_window_is_open(ground: Ground) -> None:
    other = Ledger(ground.ledger.directory)
    with (
        other.locked(),
        ground.hierarchy.open(ground.path) as cgroup,
        pytest.raises(LedgerBusy),
        ground.no_swap.on(cgroup, wait_sec=0.02),
    ):
        pytest.fail("the window was opened")
    assert ground.value == ground.old
