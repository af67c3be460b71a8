"""A plan against what the kernel is then really told."""

from __future__ import annotations

import pytest

from logindguard.kernel.cgroupfs import Cgroup
from logindguard.model import Purpose, Reclaim
from tests.kernel.v2.conftest import MIB, Ground
from tests.kernel.v2.test_backend import dying, live


def size_and_rest(request: str) -> tuple[int, str]:
    size, _, rest = request.partition(" ")
    return int(size), rest


def test_the_plan_is_what_is_written(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    decision = Reclaim(
        max_bytes=MIB, keep_mapped=True, window_usec=30_000_000, write_usec=4_000, reason="test"
    )
    with live(ground, "a", 10 * MIB), live(ground, "b", 20 * MIB), dying(ground):
        ground.settle()
        residue = ground.backend.read(ground.parent).residue
        planned = ground.backend.plan(residue, decision)
        assert ground.dying(ground.parent) >= residue.dying
        assert ground.memory_min(f"{ground.parent}/a") == 0

        written: list[tuple[str, str, str]] = []
        really = Cgroup.write

        def write(cgroup: Cgroup, file: str, value: str) -> None:
            written.append((cgroup.path, file, value))
            really(cgroup, file, value)

        monkeypatch.setattr(Cgroup, "write", write)
        ground.backend.reclaim(residue, decision, lambda: False)

    def told(purpose: Purpose) -> list[tuple[str, str, str]]:
        return [(each.path, each.file, each.value) for each in planned if each.purpose is purpose]

    reclaims = [each for each in written if each[1] == "memory.reclaim"]
    shields = written[: written.index(reclaims[0])]
    assert [each[:2] for each in shields] == [each[:2] for each in told(Purpose.SHIELD)]
    for real, foretold in zip(shields, told(Purpose.SHIELD), strict=True):
        assert int(real[2]) == pytest.approx(int(foretold[2]), abs=MIB)  # a neighbour's usage moves a little
    # The kernel takes more than is asked for, or has no more.
    for real, foretold in zip(reclaims, told(Purpose.RECLAIM), strict=False):
        assert real[:2] == foretold[:2]
        assert size_and_rest(real[2])[0] <= size_and_rest(foretold[2])[0]
        assert size_and_rest(real[2])[1] == size_and_rest(foretold[2])[1]
    assert reclaims[0] == told(Purpose.RECLAIM)[0]
    assert len(reclaims) <= len(told(Purpose.RECLAIM))
    assert written[-2:] == told(Purpose.RESTORE)
