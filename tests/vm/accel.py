"""KVM where it is proved to run a kernel, TCG elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

from tests.vm.image import BUILD, Image
from tests.vm.system import System

KVM = "kvm"
PROOF_TIMEOUT_SEC = 10


def accelerator(system: System, image: Image) -> str:
    """What to give to QEMU's -accel; the first call after a host boot may take PROOF_TIMEOUT_SEC."""
    return KVM if _kvm_works(image) else system.tcg


def _kvm_works(image: Image) -> bool:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    verdict = BUILD / f"kvm-{image.directory.name}.json"  # another kernel may behave differently
    key = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    try:
        seen = json.loads(verdict.read_text())
        if seen["key"] == key:
            return bool(seen["works"])
    except (OSError, ValueError, KeyError):
        pass  # never tried, or the file is damaged: try now
    works = _boots_to_panic(image)
    with tempfile.NamedTemporaryFile("w", dir=BUILD, delete=False) as file:
        json.dump({"key": key, "works": works}, file)
    Path(file.name).rename(verdict)
    return works


def _boots_to_panic(image: Image) -> bool:
    """Whether the kernel, given no disk, comes as far as its panic over that.

    /dev/kvm opens on some nested hosts where a guest then hangs before its first line.
    """
    command = [
        *("setpriv", "--pdeathsig", "KILL", "--"),
        *("qemu-system-x86_64", "-machine", "q35", "-accel", KVM, "-cpu", "host", "-smp", "2", "-m", "512M"),
        *("-display", "none", "-nodefaults", "-no-reboot", "-serial", "stdio"),
        *("-kernel", str(image.kernel), "-append", "console=ttyS0 panic=-1"),
    ]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PROOF_TIMEOUT_SEC,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0 and b"Kernel panic" in done.stdout
