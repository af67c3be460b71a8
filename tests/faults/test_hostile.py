"""A local user who owns the cgroups below user@UID.service and wants root to write somewhere else.

What docs/trust.md claims, claim by claim. On trees of plain files a user can do more than on the real
cgroupfs: make links there, and files of any name.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from logindguard.config import Config
from logindguard.kernel import units
from logindguard.kernel.cgroupfs import CgroupGone, Hierarchy, KernelError, detect, is_cgroup_path
from logindguard.kernel.confine import Confined
from logindguard.kernel.ledger import Ledger, LedgerError
from logindguard.kernel.shield import Restored, Shield, restore
from logindguard.model import Residue, Source, Teardown
from logindguard.policy import covers
from logindguard.record.textfile import replace_text
from logindguard.signals.cgroup_watch import CgroupWatch
from logindguard.signals.registry import Registry
from tests.faults.ground import CHILDREN, PARENT, Ground, ground_in
from tests.faults.kernfs import bury, put

USER = 65534
MANAGER = "/user.slice/user-1000.slice/user@1000.service"
NAMES = (
    *("session-1.scope", "ssh.service", "cron.service", "user.slice", "user@0.service", "session-1.scope "),
    *("a\nb.scope", "\x1b[31m.scope", "<0>x.scope", "MESSAGE=x.scope", "\udcff.scope", "..scope", "x" * 255),
    *("_session-1.scope", "%s%n.scope", "session-1.scope;reboot", "-rf.scope", "{}.scope", "\u202e.scope"),
)


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    ground = ground_in(tmp_path)
    ground.fill()
    return ground


def raised(ground: Ground) -> Shield:
    """A window that a SIGKILL ends, unless somebody lowers it."""
    shield = Shield(
        ground.ledger, ground.tree.hierarchy.open(PARENT), recursiveprot=True, margin_bytes=64 << 20
    )
    shield.raise_()
    return shield


# Root writes to the control file of the cgroup that was meant, and nowhere else


def test_a_link_in_place_of_a_cgroup_is_not_followed(ground: Ground, tmp_path: Path) -> None:
    precious = tmp_path / "etc"
    precious.mkdir()
    (precious / "memory.min").write_text("precious")
    bury(ground.tree, CHILDREN[0])
    ground.tree.directory(CHILDREN[0]).symlink_to(precious)
    raised(ground).lower()
    with pytest.raises(KernelError):
        ground.tree.hierarchy.open(CHILDREN[0])
    assert (precious / "memory.min").read_text() == "precious"


@pytest.mark.parametrize("file", ["memory.min", "memory.reclaim", "memory.swap.max"])
def test_a_link_in_place_of_a_control_file_is_not_followed(ground: Ground, tmp_path: Path, file: str) -> None:
    precious = tmp_path / "shadow"
    precious.write_text("precious")
    control = ground.tree.directory(PARENT) / file
    control.unlink()
    control.symlink_to(precious)
    with ground.tree.hierarchy.open(PARENT) as cgroup:
        with pytest.raises(KernelError):
            cgroup.write(file, "1")
        with pytest.raises(KernelError):
            cgroup.read(file)
    assert precious.read_text() == "precious"


@pytest.mark.parametrize(
    "path", ["", "a", "/..", "/a/../b", "/./a", "//a", "/a/", "/a\0b", "../../etc", "/user.slice/../../etc"]
)
def test_paths_that_leave_the_tree(ground: Ground, path: str) -> None:
    assert not is_cgroup_path(path)
    with pytest.raises(ValueError, match="not a cgroup path"):
        ground.tree.hierarchy.open(path)


def test_the_target_is_told_by_its_inode(ground: Ground) -> None:
    """What was read is what is written to, though another cgroup has its name by now."""
    confined = Confined(ground.tree.hierarchy, ("/user.slice",))
    inode = ground.tree.hierarchy.inode_of(PARENT)
    assert inode is not None
    bury(ground.tree, PARENT)
    ground.tree.add(PARENT)
    with pytest.raises(CgroupGone):
        confined._open(Residue(path=PARENT, inode=inode, dying=1))
    with pytest.raises(ValueError, match="outside"):
        confined._open(Residue(path="/system.slice", inode=1, dying=1))
    with pytest.raises(ValueError, match="outside"):
        confined._open(Residue(path="/user.slicer", inode=1, dying=1))


# No value is restored onto another cgroup


def test_a_namesake_with_our_very_value_keeps_it(ground: Ground) -> None:
    raised(ground)
    value = ground.tree.memory_min(CHILDREN[0])
    bury(ground.tree, CHILDREN[0])
    ground.tree.add(CHILDREN[0])
    put(ground.tree.directory(CHILDREN[0]), "memory.min", value)
    assert restore(ground.tree.hierarchy, ground.ledger) == Restored(restored=1, gone=1)
    assert ground.tree.memory_min(CHILDREN[0]) == value


def test_a_cgroup_moved_into_the_way_of_another(ground: Ground) -> None:
    """Renaming works on v1 alone; there too it is the inode that is asked."""
    raised(ground)
    value = ground.tree.memory_min(CHILDREN[1])
    directories = [ground.tree.directory(path) for path in CHILDREN[:2]]
    directories[0].rename(directories[0].with_name("aside"))
    directories[1].rename(directories[0])
    assert restore(ground.tree.hierarchy, ground.ledger) == Restored(gone=2)
    assert ground.tree.memory_min(CHILDREN[0]) == value


# The ledger is root's alone


def test_a_ledger_that_others_could_have_written(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (tmp_path / "link").symlink_to(theirs)
    os.chown(theirs, USER, USER)
    for path in (theirs, tmp_path / "link"):
        with pytest.raises(LedgerError, match="must belong to this user"):
            Ledger(path).prepare()


def test_no_lock_is_taken_through_a_link(ground: Ground, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (ground.ledger.directory / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(LedgerError), ground.ledger.locked():
        pass
    assert (tmp_path / "precious").read_text() == "precious"


# Names mean nothing


def told_of(*paths: str) -> list[Teardown]:
    """Teardowns that a registry with the default settings tells, when cgroups at these paths come and go."""
    told: list[Teardown] = []
    registry = Registry(lambda unit: covers(unit, Config().units), told.append)
    for inode, path in enumerate(paths, start=1):
        registry.appeared(path, inode, 0)
    for unit in (
        "session-1.scope",
        "ssh.service",
        "cron.service",
    ):  # what the system bus says means the system's
        registry.ended(unit, Source.SYSTEMD1, 1)
        registry.ending(unit, Source.SYSTEMD1, 1)
    by_bus = len(told)
    assert by_bus == sum(f"/{unit}" in paths for unit in ("session-1.scope", "ssh.service", "cron.service"))
    for path in paths:
        registry.ended(path, Source.CGROUP_WATCH, 2)
    return told


def test_names_that_users_make_up() -> None:
    told = told_of(*(f"{MANAGER}/{name}" for name in NAMES))
    assert all(teardown.unit.isascii() and teardown.unit.isprintable() for teardown in told)
    assert all(teardown.path.isprintable() and teardown.uid == 1000 for teardown in told)
    assert not {"\n", "\x1b", " ", ";", "<", "%", "{"} & {*"".join(teardown.unit for teardown in told)}


def test_a_users_session_is_no_session_of_the_systems(ground: Ground) -> None:
    tree = ground.tree
    for path in (MANAGER, f"{MANAGER}/ssh.service", f"{MANAGER}/session-1.scope"):
        tree.add(path)
    assert units.find(tree.hierarchy, (), "ssh.service") == []
    assert units.find(tree.hierarchy, (), "session-1.scope") == [CHILDREN[0]]


@pytest.mark.parametrize(
    "name", ["../x.scope", "a/b.scope", "x.scope\0", "x.scope\n", "", "x" * 300 + ".scope"]
)
def test_names_from_callers(name: str) -> None:
    assert not units.is_unit(name)
    assert units.scope_of(name) is None


# The one file that root writes outside of /run


def test_a_textfile_in_a_directory_of_somebody_elses(tmp_path: Path) -> None:
    precious = tmp_path / "shadow"
    precious.write_text("precious")
    directory = tmp_path / "theirs"
    directory.mkdir()
    os.chown(directory, USER, USER)
    file = directory / "guard.prom"
    for link in (file, directory / ".guard.prom.new"):
        link.symlink_to(precious)
    replace_text(file, "metrics")
    assert precious.read_text() == "precious"
    assert file.read_text() == "metrics"
    assert not file.is_symlink()


# On the real cgroupfs of this machine, by a user with a subtree of its own

MAKE = """
import os, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
top = sys.argv[1]
for number in range(int(sys.argv[2])):
    os.mkdir(f"{top}/session-{number}.scope")
for name in eval(sys.argv[3]):
    try:
        os.mkdir(os.fsencode(f"{top}/x-{name}"))
    except OSError:
        pass  # cgroupfs itself refuses some
for make in (lambda: os.symlink("/etc", f"{top}/link"), lambda: open(f"{top}/file", "w"),
             lambda: os.link(f"{top}/cgroup.procs", f"{top}/hard"), lambda: os.mkfifo(f"{top}/fifo")):
    try:
        make()
    except OSError:
        continue
    sys.exit("something else than a cgroup could be made")
"""


@pytest.fixture
def delegated() -> Iterator[tuple[Hierarchy, Path]]:
    """Our corner of the hierarchy, and a directory in it that belongs to a user, who made thousands there."""
    found = detect()
    assert found is not None
    top = found.mount / f"lghostile-{os.getpid()}"
    manager = top / f"user.slice/user-{USER}.slice/user@{USER}.service"
    manager.mkdir(parents=True)
    os.chown(manager, USER, USER)
    try:
        made = subprocess.run([sys.executable, "-c", MAKE, manager, "2000", repr(NAMES)], check=False)
        assert made.returncode == 0
        yield Hierarchy(found.version, top, found.options), manager
    finally:
        for directory, _, _ in os.walk(top, topdown=False):
            Path(directory).rmdir()


@pytest.mark.native
async def test_a_user_with_thousands_of_cgroups(delegated: tuple[Hierarchy, Path]) -> None:
    hierarchy, _ = delegated
    told: list[Teardown] = []
    registry = Registry(lambda unit: covers(unit, Config().units), told.append, max_live=1_000)
    watch = CgroupWatch(hierarchy.mount, (), registry, max_watches=100)
    await watch.start()
    try:
        assert len(registry) <= 500  # the other half is not for users
        assert watch.watches <= 100
        assert registry.live("session-1.scope") == []
        system = hierarchy.mount / "user.slice/user-0.slice"
        (system / "session-1.scope").mkdir(parents=True)
        await watch.rescan()
        assert [path for path, _ in registry.live("session-1.scope")] == [
            "/user.slice/user-0.slice/session-1.scope"
        ]
        assert units.find(hierarchy, (), "session-2.scope") == []
    finally:
        watch.stop()
