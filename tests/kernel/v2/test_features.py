"""What is detected on the kernel that runs this, held against other witnesses."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from logindguard.kernel.features import file_contains, probe
from tests.kernel.v2.conftest import Ground


def release() -> tuple[int, ...]:
    return tuple(int(part) for part in os.uname().release.split(".")[:2])


def test_features_are_those_of_this_kernel(ground: Ground) -> None:
    features = ground.features
    assert features.memory_reclaim == (release() >= (5, 19))
    assert features.swappiness_word == (release() >= (6, 11))
    assert features.dying_key == (
        "nr_dying_subsys_memory" if release() >= (6, 12) else "nr_dying_descendants"
    )
    assert features.reparents_lru == (release() >= (7, 1))
    mounts = subprocess.run(["findmnt", "-no", "OPTIONS", "/sys/fs/cgroup"], capture_output=True, text=True)
    assert features.recursiveprot == ("memory_recursiveprot" in mounts.stdout)


def test_probing_reclaims_nothing(ground: Ground) -> None:
    before = ground.stat(ground.top).pgsteal
    for _ in range(10):
        probe(ground.hierarchy, ground.top)
    ground.settle()
    assert ground.stat(ground.top).pgsteal == before


def test_btf_tells_symbols() -> None:
    btf = Path("/sys/kernel/btf/vmlinux")
    assert file_contains(btf, b"\0mem_cgroup_iter\0")
    assert file_contains(btf, b"\0no_such_symbol_anywhere\0") is False
