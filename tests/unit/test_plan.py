"""A plan is held against what a real run writes, on a tree of plain files."""

from __future__ import annotations

from pathlib import Path

import pytest

from logindguard.config import Config
from logindguard.kernel.cgroupfs import Cgroup, CgroupGone
from logindguard.kernel.features import Features
from logindguard.kernel.ledger import Ledger
from logindguard.kernel.v2 import V2Backend
from logindguard.model import Purpose, Reading, Reclaim
from logindguard.plan import plan
from tests.unit.fake_cgroupfs import FakeTree

MIB = 1 << 20
Written = list[tuple[str, str, str]]


def features(*, recursiveprot: bool) -> Features:
    return Features(
        memory_reclaim=True,
        swappiness_word=True,
        partial_walks=True,
        mglru=False,
        recursiveprot=recursiveprot,
        reparents_lru=False,
        dying_key="nr_dying_descendants",
    )


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    """What is really written, in its order."""
    log: Written = []
    really = Cgroup.write

    def write(cgroup: Cgroup, file: str, value: str) -> None:
        log.append((cgroup.path, file, value))
        really(cgroup, file, value)

    monkeypatch.setattr(Cgroup, "write", write)
    return log


def backend(tmp_path: Path, *, recursiveprot: bool) -> V2Backend:
    directory = tmp_path / "tree"
    directory.mkdir()
    tree = FakeTree(directory, recursiveprot=recursiveprot)
    tree.set("/", dying=4)
    tree.add("/user.slice", dying=4, file=40 * MIB)
    tree.add("/user.slice/user-1.slice", current=10 * MIB, file=10 * MIB)
    tree.add("/user.slice/user-1.slice/session-1.scope", current=8 * MIB, file=8 * MIB)
    below = tree.add("/user.slice/user-2.slice", current=MIB, file=MIB)
    (below / "memory.min").write_text(f"{4096}\n")
    covered = tree.add("/user.slice/user-3.slice", current=MIB, file=MIB)
    (covered / "memory.min").write_text("max\n")
    ledger = Ledger(tmp_path / "run")
    ledger.prepare()
    return V2Backend(tree.hierarchy, features(recursiveprot=recursiveprot), ledger)


@pytest.mark.parametrize("recursiveprot", [True, False])
@pytest.mark.parametrize(
    "decision",
    [
        Reclaim(max_bytes=MIB, keep_mapped=True, window_usec=10**9, write_usec=20_000, reason=""),
        Reclaim(max_bytes=MIB + 8192, keep_mapped=True, window_usec=10**9, write_usec=20_000, reason=""),
        Reclaim(max_bytes=12 * MIB, keep_mapped=False, window_usec=10**9, write_usec=20_000, reason=""),
    ],
)
def test_the_plan_is_what_is_written(
    tmp_path: Path, written: Written, decision: Reclaim, *, recursiveprot: bool
) -> None:
    v2 = backend(tmp_path, recursiveprot=recursiveprot)
    residue = v2.read("/user.slice").residue
    before = {path: path.read_text() for path in (tmp_path / "tree").rglob("memory.*")}
    planned = v2.plan(residue, decision)
    assert written == []
    assert {path: path.read_text() for path in (tmp_path / "tree").rglob("memory.*")} == before
    assert list((tmp_path / "run").iterdir()) == []
    v2.reclaim(residue, decision, lambda: False)
    assert [(each.path, each.file, each.value) for each in planned] == written
    kinds = [each.purpose for each in planned]
    shields, reclaims = kinds.count(Purpose.SHIELD), kinds.count(Purpose.RECLAIM)
    assert shields == (2 if recursiveprot else 3)
    assert kinds == [Purpose.SHIELD] * shields + [Purpose.RECLAIM] * reclaims + [Purpose.RESTORE] * shields
    asked = [int(each.value.split()[0]) for each in planned if each.purpose is Purpose.RECLAIM]
    assert sum(asked) == decision.max_bytes


def test_a_plan_ends_with_the_time_of_its_window(tmp_path: Path) -> None:
    v2 = backend(tmp_path, recursiveprot=True)
    residue = v2.read("/user.slice").residue
    wide = Reclaim(max_bytes=40 * MIB, keep_mapped=True, window_usec=1_000, write_usec=100, reason="")
    planned = v2.plan(residue, wide)
    per_write_usec = v2._writer.cost.predicted_usec(128 << 10, 4)
    assert sum(each.purpose is Purpose.RECLAIM for each in planned) == -(-1_000 // per_write_usec)


def test_a_sweeps_plan(tmp_path: Path) -> None:
    v2 = backend(tmp_path, recursiveprot=True)
    everything = plan(v2, Config(), lambda path: True)
    assert {(each.purpose, each.path) for each in everything} == {
        (Purpose.SHIELD, "/user.slice/user-1.slice"),
        (Purpose.SHIELD, "/user.slice/user-2.slice"),
        (Purpose.RECLAIM, "/user.slice"),
        (Purpose.RESTORE, "/user.slice/user-1.slice"),
        (Purpose.RESTORE, "/user.slice/user-2.slice"),
    }
    assert plan(v2, Config(), lambda path: path == "/system.slice") == []


def test_a_plan_leaves_out_what_goes_and_ends_where_there_is_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    v2 = backend(tmp_path, recursiveprot=True)
    read = V2Backend.read

    def gone(backend: V2Backend, path: str) -> Reading:
        if path == "/user.slice":
            raise CgroupGone(path)
        return read(backend, path)

    with monkeypatch.context() as patched:
        patched.setattr(V2Backend, "read", gone)
        assert plan(v2, Config(), lambda path: True) == []
    monkeypatch.setattr("logindguard.plan.MAX_WRITES", 0)
    assert plan(v2, Config(), lambda path: True) == []
