"""The nudge, in directories that stand for a delegated cgroup; the kernel's own is in tests/vm."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from logindguard.kernel.cgroupfs import Hierarchy
from logindguard.kernel.nudge import Nudge

UNIT = "system.slice/logindguard.service"


@pytest.fixture
def delegated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """The directories that are."""
    found = {tmp_path / UNIT}

    def getxattr(path: Path, name: str) -> bytes:
        if path in found and name == "user.delegate":
            return b"1"
        raise OSError(61, "No data available")

    monkeypatch.setattr(os, "getxattr", getxattr)
    return found


def nudge(tmp_path: Path, path: str, *, version: int = 2) -> Nudge:
    """Of a process in the cgroup `path`, which is there."""
    (tmp_path / path).mkdir(parents=True, exist_ok=True)
    proc = tmp_path / "proc/self"
    proc.mkdir(parents=True, exist_ok=True)
    (proc / "cgroup").write_text(f"4:memory:/elsewhere\n0::/{path}\n")
    return Nudge(Hierarchy(version, tmp_path), tmp_path / "proc")


def test_it_moves_down_and_makes_a_cgroup_that_goes_at_once(tmp_path: Path, delegated: set[Path]) -> None:
    one = nudge(tmp_path, UNIT)
    own = tmp_path / UNIT
    (own / "main").mkdir()  # of a run before
    one.prepare()
    assert (own / "main/cgroup.procs").read_text() == "0"
    assert (own / "cgroup.subtree_control").read_text() == "+memory"
    assert one()
    assert sorted(each.name for each in own.iterdir()) == ["cgroup.subtree_control", "main"]
    nudge(tmp_path, f"{UNIT}/.control").undo()
    assert (own / "cgroup.subtree_control").read_text() == "-memory"


def test_nothing_that_is_not_delegated_is_touched(tmp_path: Path, delegated: set[Path]) -> None:
    delegated.clear()
    one = nudge(tmp_path, UNIT)
    one.prepare()
    assert not one()
    nudge(tmp_path, f"{UNIT}/.control").undo()
    assert [each.name for each in (tmp_path / UNIT).iterdir()] == [".control"]


@pytest.mark.parametrize(("path", "version"), [("", 2), (UNIT, 1)])
def test_elsewhere_it_does_nothing(tmp_path: Path, delegated: set[Path], path: str, version: int) -> None:
    before = sorted(tmp_path.rglob("*"))
    one = nudge(tmp_path, path, version=version)
    one.prepare()
    one.undo()
    assert not one()
    assert {each.name for each in {*tmp_path.rglob("*")} - {*before}} <= {
        *("proc", "self", "cgroup", "system.slice", "logindguard.service")
    }


def test_by_hand_nothing_is_undone(tmp_path: Path, delegated: set[Path]) -> None:
    """From a shell in a session, or from the service itself."""
    for path in (UNIT, "user.slice/session-1.scope"):
        nudge(tmp_path, path).undo()
    assert list((tmp_path / UNIT).iterdir()) == []


def test_what_the_kernel_refuses_is_no_nudge(
    tmp_path: Path, delegated: set[Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    one = nudge(tmp_path, UNIT)
    (tmp_path / UNIT / "main").write_text("in the way")
    one.prepare()
    assert not one()
    assert "No cgroup of this service's own can be made to nudge the kernel" in caplog.text
