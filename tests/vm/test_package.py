"""The package's own tests (autopkgtest, debian/tests) on our machines, as Debian would run them on its."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Tell
from tests.vm.machine import Machine
from tests.vm.package import deb

TESTS = Path(__file__).parents[2] / "debian" / "tests"


def run(machine: Machine, name: str, *, environment: str = "", timeout_sec: float) -> str:
    machine.put(TESTS / name, f"/var/tmp/{name}", mode=0o755)
    return machine.run(f"cd / && {environment} /var/tmp/{name}", timeout_sec=timeout_sec).stdout


def test_smoke(machine: Machine) -> None:
    assert run(machine, "smoke", timeout_sec=120).endswith("passed\n")


@pytest.mark.load
@pytest.mark.timeout(1900)  # it takes up to fifteen minutes under emulation, with others at work
def test_lifecycle(machine: Machine, tell: Tell) -> None:
    """Logins, polkit, upgrade amid reclaims, removal, reinstallation, purge."""
    package = deb()
    machine.run("mkdir -p /var/tmp/package")
    machine.put(package, f"/var/tmp/package/{package.name}")
    path = f"/var/tmp/package/{package.name}"
    steps = run(machine, "lifecycle", environment=f"LOGINDGUARD_DEB={path}", timeout_sec=1700).splitlines()
    for step in steps:
        tell(step)
    assert steps[-1].endswith("done")
    machine.run("rm -r /var/tmp/package")
