"""The lab on cgroup v2: what it makes natively on v1 it makes here too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import leak, neighbour
from tests.lab.leak import Pattern
from tests.vm.conftest import on
from tests.vm.machine import Machine, wait_until
from tests.vm.system import BOOKWORM

pytestmark = on(BOOKWORM)

ROOT = "/lab.slice"
FILES = {Pattern.SHMEM: "/run/lab"}


@pytest.fixture
def lab(bare_machine: Machine) -> Iterator[Machine]:
    """A machine with the lab's programs and an empty cgroup that nobody else looks after."""
    for program in (leak, neighbour):
        path = Path(str(program.__file__))
        bare_machine.put(path, f"/var/tmp/{path.name}")
    bare_machine.run(f"mkdir /sys/fs/cgroup{ROOT}")
    yield bare_machine
    bare_machine.run(f"rmdir /sys/fs/cgroup{ROOT}")


@pytest.mark.parametrize("pattern", list(Pattern))
def test_each_pattern_leaves_dying_memcgs(lab: Machine, pattern: Pattern) -> None:
    files = FILES.get(pattern, "/var/tmp/lab")
    command = f"python3 /var/tmp/leak.py --root /sys/fs/cgroup{ROOT} --work-dir {files} --pattern {pattern}"
    with lab.session("root", f"{command} --count 200 --depth 2") as session:
        summary = json.loads(session.readline())
        assert (summary["made"], summary["dying_before"]) == (400, 0)
        # The outer one of two holds no page and goes with the inner one.
        assert summary["dying_after"] >= 200
        assert lab.memory_stat(ROOT)["file"] >= 200 * 4096
    lab.run(f"test ! -e {files}")


def test_a_neighbour_is_a_session_of_its_user(lab: Machine) -> None:
    with lab.session("bob", "python3 /var/tmp/neighbour.py --work-dir hoard --bytes 20000000") as session:
        assert json.loads(session.readline()) == {"held_bytes": 20 << 20}
        held = lab.memory_stat(session.cgroup)
        assert held["file"] >= 20 << 20
        assert held["file_dirty"] < 1 << 20  # of its directory; the files are synced
        assert held["pgsteal"] == 0
        session.ask("shrink 10485760")
        # Of its files; what its program takes is charged to it too where nobody else has read that before.
        wait_until(  # memory.stat lags behind by up to 2 s
            lambda: lab.memory_stat(session.cgroup)["file"] < held["file"] - (9 << 20),
            timeout_sec=30,
            what="it has shrunk",
        )
