"""The tests of the kernel seam, run inside the machine on its real cgroup v2."""

from __future__ import annotations

import io
import tarfile

from tests.conftest import Tell
from tests.vm.image import CHECKOUT
from tests.vm.machine import Machine

WHERE = "/var/tmp/checkout"


def put_checkout(machine: Machine) -> None:
    """Code and tests as they are here, without the rig."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in ("logindguard", "tests", "pyproject.toml"):
            tar.add(
                CHECKOUT / name,
                arcname=name,
                filter=lambda info: None if info.name.endswith(("__pycache__", "tests/vm")) else info,
            )
    machine.run(f"rm -rf {WHERE} && mkdir {WHERE} && tar -xz -C {WHERE}", data=packed.getvalue())


def test_the_kernel_seam_on_the_machines_own_kernel(machine: Machine, tell: Tell) -> None:
    put_checkout(machine)
    run = (
        f"cd {WHERE} && python3 -m pytest -q --tb=short -p no:cacheprovider"
        " tests/kernel/v2 tests/kernel/test_shield.py tests/kernel/test_contract.py"
        " tests/kernel/test_charged_files.py tests/kernel/test_births.py"
    )
    # The machine's own guard sees the whole tree: it must not open windows on this ground as well.
    machine.run("systemctl stop logindguard.service")
    try:
        result = machine.run(run, check=False, timeout_sec=540)
    finally:
        machine.run("systemctl start logindguard.service")
    tell(result.stdout.strip().splitlines()[-1])
    assert result.status == 0, result.stdout
    assert "skipped" not in result.stdout
