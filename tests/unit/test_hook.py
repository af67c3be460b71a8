"""Who may have its cgroup reclaimed: the hook of what is really ending, and nobody else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from logindguard.hook import Standing, standing
from logindguard.kernel.cgroupfs import Hierarchy, KernelRefused
from logindguard.kernel.processes import NoProcess, Scene, cgroup_of, look, parent_of
from logindguard.kernel.warm import warm

LISTENER, LEADER, SHELL, TIMEOUT, SENDER = 100, 200, 301, 302, 303
HOOK = {SHELL: LEADER, TIMEOUT: SHELL, SENDER: TIMEOUT}


@pytest.mark.parametrize(
    ("parents", "expected"),
    [
        pytest.param({LEADER: LISTENER, **HOOK}, Standing.ENDING, id="sshd, its user's processes gone"),
        pytest.param(HOOK, Standing.ENDING, id="called from outside the cgroup, as by systemd"),
        pytest.param({LEADER: LISTENER, 201: LEADER, **HOOK}, Standing.SOON, id="sshd's child still exits"),
        pytest.param({LEADER: LISTENER, 900: 1, **HOOK}, Standing.LIVE, id="left in the background"),
        pytest.param(
            {LEADER: LISTENER, 201: LEADER, 900: 1, **HOOK}, Standing.LIVE, id="both: it will not end soon"
        ),
        pytest.param(
            {50: LISTENER, 51: 50, 52: 51, LEADER: 52, **HOOK}, Standing.LIVE, id="su in a shell of a session"
        ),
        pytest.param({50: LISTENER, LEADER: 50, **HOOK}, Standing.LIVE, id="a child of the leader uses PAM"),
        pytest.param({900: 1, **HOOK}, Standing.LIVE, id="a service that left processes"),
        pytest.param(
            {50: LISTENER, 51: 50, SENDER: 51}, Standing.ENDING, id="three by hand, as a job of cron"
        ),
        pytest.param({50: LISTENER, SENDER: 50}, Standing.LIVE, id="by hand, called by one process"),
        pytest.param({SENDER: LISTENER}, Standing.LIVE, id="alone"),
        pytest.param({LEADER: LISTENER, SHELL: LEADER, TIMEOUT: SHELL}, Standing.LIVE, id="gone meanwhile"),
        pytest.param({}, Standing.LIVE, id="nobody"),
    ],
)
def test_standing(parents: dict[int, int], expected: Standing) -> None:
    scene = Scene(path="/user.slice/session-1.scope", inode=1, pid=SENDER, parents=parents)
    assert standing(scene) is expected


def process(proc: Path, pid: int, *, cgroup: str, stat: str) -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "cgroup").write_text(cgroup)
    (proc / str(pid) / "stat").write_text(stat)


def test_where_a_process_is(tmp_path: Path) -> None:
    v1 = "12:pids:/a\n4:cpu,memory:/user.slice/session-3.scope\n1:name=systemd:/b\n0::/c:d\n"
    process(tmp_path, 1, cgroup=v1, stat="1 (systemd) S 0 1 1")
    process(tmp_path, 2, cgroup="0::/user.slice\n", stat="2 (a) S 9 (b) R 1 2 2")
    assert cgroup_of(1, Hierarchy(1, Path("/x")), tmp_path) == "/user.slice/session-3.scope"
    assert cgroup_of(1, Hierarchy(2, Path("/x")), tmp_path) == "/c:d"
    assert cgroup_of(2, Hierarchy(2, Path("/x")), tmp_path) == "/user.slice"
    (tmp_path / "2" / "cgroup").write_bytes("0::/a\r0::/b\x0b\u2028c\n".encode())
    assert cgroup_of(2, Hierarchy(2, Path("/x")), tmp_path) == "/a\r0::/b\x0b\u2028c"
    with pytest.raises(NoProcess):
        cgroup_of(2, Hierarchy(1, Path("/x")), tmp_path)
    with pytest.raises(NoProcess):
        cgroup_of(3, Hierarchy(2, Path("/x")), tmp_path)
    assert (parent_of(1, tmp_path), parent_of(2, tmp_path)) == (0, 1)
    with pytest.raises(NoProcess):
        parent_of(3, tmp_path)


@pytest.mark.parametrize("hidden", ["unreadable", "of another PID namespace"])
def test_whoever_cannot_be_seen_is_not_taken_for_gone(tmp_path: Path, hidden: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "cgroup.procs").write_text(f"1\n{2 if hidden == 'unreadable' else 0}\n3\n")
    process(tmp_path, 1, cgroup="0::/a\n", stat="1 (a) S 9 1 1")
    (tmp_path / "2" / "stat").mkdir(parents=True)  # any error but that there is none
    hierarchy = Hierarchy(2, tmp_path)
    with pytest.raises(KernelRefused):
        look(1, hierarchy, tmp_path)
    (tmp_path / "a" / "cgroup.procs").write_text("1\n3\n")
    assert look(1, hierarchy, tmp_path).parents == {1: 9}  # 3 has ended since


def test_the_real_proc() -> None:
    assert parent_of(os.getpid()) == os.getppid()


def test_warming_reads_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.so").write_bytes(b"x" * 10_000)
    (tmp_path / "b.so").symlink_to("nowhere")
    (tmp_path / "c.so").mkdir()
    assert warm(["*.so", "missing"], tmp_path) >= 1
    assert warm() >= 3
