"""Each system is what it is said to be, and healthy before any test touches it."""

from __future__ import annotations

import re

from tests.conftest import Tell
from tests.vm.conftest import on
from tests.vm.machine import Machine, wait_until
from tests.vm.system import BACKPORTS, BOOKWORM, BOOKWORM_V1, GUARDED, TRIXIE

pytestmark = on(*GUARDED)

KERNELS = {BOOKWORM: (6, 1), TRIXIE: (6, 12), BOOKWORM_V1: (6, 1)}
FIRST_SELF_HEALING = (7, 1)


def test_boots_without_failed_units(bare_machine: Machine, tell: Tell) -> None:
    assert bare_machine.run("systemctl is-system-running", check=False).stdout.strip() == "running"
    assert bare_machine.run("systemctl --failed --no-legend").stdout == ""
    words = bare_machine.run("uname -r; systemctl --version | head -1").stdout.splitlines()
    tell(f"kernel {words[0]}, {words[1]}, booted in {bare_machine.boot_seconds:.0f} s")
    release = re.match(r"(\d+)\.(\d+)", words[0])
    assert release is not None
    version = (int(release[1]), int(release[2]))
    if bare_machine.system is BACKPORTS:
        assert version >= FIRST_SELF_HEALING
    else:
        assert version == KERNELS[bare_machine.system]


def test_the_memory_controller_is_where_it_is_said_to_be(bare_machine: Machine) -> None:
    mounts = bare_machine.read("/proc/mounts")
    if bare_machine.system.cgroup_version == 1:
        assert re.search(r"^cgroup /sys/fs/cgroup/memory cgroup \S*\bmemory\b", mounts, re.MULTILINE)
    else:
        line = re.search(r"^cgroup2 /sys/fs/cgroup cgroup2 (\S+)", mounts, re.MULTILINE)
        assert line is not None
        assert "memory_recursiveprot" in line[1].split(",")
    assert bare_machine.memory_stat("/user.slice")["file"] > 0


def test_a_login_is_a_session_scope_that_goes_away(bare_machine: Machine) -> None:
    with bare_machine.session("alice", "while read line; do echo $line; done") as session:
        assert re.fullmatch(r"/user\.slice/user-1000\.slice/session-\d+\.scope", session.cgroup)
        assert session.ask("there") == "there"
        assert bare_machine.memory_stat(session.cgroup)["anon"] > 0
    gone = f"test ! -e {bare_machine.memory_root}{session.cgroup}"
    wait_until(
        lambda: bare_machine.run(gone, check=False).status == 0, timeout_sec=10, what="the scope is gone"
    )
