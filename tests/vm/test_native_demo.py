"""The native demo inside a machine, which has the cgroup version that the one around it may lack."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator

import pytest

from tests.conftest import Tell
from tests.demo.host import PREFIX
from tests.vm.conftest import on
from tests.vm.image import CHECKOUT
from tests.vm.machine import Machine
from tests.vm.system import BOOKWORM

pytestmark = [on(BOOKWORM), pytest.mark.load]

PLACE = "/var/tmp/demo-checkout"


@pytest.fixture
def with_checkout(bare_machine: Machine) -> Iterator[Machine]:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in ("logindguard", "tests"):
            archive.add(
                CHECKOUT / name, name, filter=lambda entry: None if "__pycache__" in entry.name else entry
            )
    bare_machine.run(f"mkdir {PLACE} && tar -xf - -C {PLACE}", data=packed.getvalue())
    yield bare_machine
    bare_machine.run(f"rm -r {PLACE}")


def test_it_shows_the_guard_at_work(with_checkout: Machine, tell: Tell) -> None:
    machine = with_checkout
    run = machine.run(f"cd {PLACE} && python3 -B -m tests.demo.native", check=False, timeout_sec=300)
    tell(f"in the machine\n{run.stdout}")
    assert run.status == 0, run.stdout + run.stderr
    assert "The guard did its job: 1000 dying memcgs without it" in " ".join(run.stdout.split())
    assert re.search(r"pages taken from the live neighbour +0 +0\n", run.stdout)
    left = machine.run(f"ls -d {machine.memory_root}/{PREFIX}* /var/tmp/{PREFIX}*", check=False)
    assert left.stdout == ""
