"""Cgroups that come, go and come again around a reclaim, and a target that goes in its midst."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from logindguard.kernel.cgroupfs import KernelError
from logindguard.model import Outcome, Reclaim
from tests.kernel.v1.conftest import Ground

DEADLINE_SEC = 60
PLAN = Reclaim(max_bytes=1 << 40, keep_mapped=False, window_usec=50_000, write_usec=5_000, reason="a test")
SPARED = "memory.soft_limit_in_bytes"  # stands for any value of theirs


@contextlib.contextmanager
def storm(parent: Path, chance: random.Random) -> Iterator[list[float]]:
    """Meanwhile siblings are born, removed and born again by the same names; how long each step took."""
    over = threading.Event()
    took_sec: list[float] = []

    def run() -> None:
        while not over.is_set():
            path = parent / f"s{chance.randrange(8)}"
            began = time.monotonic()
            with contextlib.suppress(OSError):
                if path.exists():
                    path.rmdir()
                else:
                    path.mkdir()
            took_sec.append(time.monotonic() - began)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield took_sec
    finally:
        over.set()
        thread.join(DEADLINE_SEC)
        assert not thread.is_alive()
        for path in parent.glob("s[0-9]"):
            path.rmdir()


def test_siblings_come_and_go(ground: Ground) -> None:
    live = ground.make(f"{ground.parent}/live")
    (live / SPARED).write_text(str(64 << 20))
    with (
        ground.dying(1_000),
        storm(ground.directory(ground.parent), random.Random(os.getpid())) as took_sec,
    ):
        for _ in range(20):
            reading = ground.backend.read(ground.parent)
            window = ground.backend.reclaim(reading.residue, PLAN, lambda: False)
            assert window.outcome in (Outcome.RELEASED, Outcome.PARTIAL, Outcome.UNCHANGED)
            assert ground.backend.residues() is not None
    assert took_sec
    assert (live / SPARED).read_text().strip() == str(64 << 20)


@pytest.mark.parametrize("whole_slice", [False, True])
def test_the_target_goes_in_the_midst(ground: Ground, whole_slice: bool) -> None:
    """Read, and then gone, or gone between two slices, or another one by its name."""
    directory = ground.directory(ground.parent)
    outcomes: set[str] = set()
    with ground.dying(200):
        for round_ in range(40):
            target = ground.make(f"{ground.parent}/t")
            if whole_slice:
                (target / "below").mkdir()
            residue = ground.backend.read(f"{ground.parent}/t").residue

            def remove(target: Path = target, sec: float = 0.0003 * round_) -> None:
                time.sleep(sec)
                if whole_slice:
                    (target / "below").rmdir()
                target.rmdir()
                target.mkdir()  # its namesake, which nobody has asked about

            thread = threading.Thread(target=remove)
            thread.start()
            try:
                outcomes.add(ground.backend.reclaim(residue, PLAN, lambda: False).outcome)
            except KernelError as error:
                outcomes.add(type(error).__name__)
            thread.join(DEADLINE_SEC)
            assert not thread.is_alive()
            target.rmdir()
    assert outcomes <= {
        Outcome.RELEASED,
        Outcome.PARTIAL,
        Outcome.UNCHANGED,
        Outcome.GONE,
        "CgroupGone",
        "Unsupported",
    }
    assert directory.exists()
