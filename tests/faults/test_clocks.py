"""Clocks that jump, both ways: what waits, waits as long as it was to."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from logindguard import pause as pause_module
from logindguard.config import TeardownSettings
from logindguard.model import Phase, Source, Teardown
from logindguard.pause import Pause, boottime_usec
from logindguard.reclaimer import now_usec
from logindguard.record.repeats import Repeats
from logindguard.settle import Settler

DAY_SEC = 86_400


@pytest.fixture(params=[-400 * DAY_SEC, -60, 60, 400 * DAY_SEC])
def jump(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock is another one from now on."""
    by_sec: int = request.param
    wall_sec, wall_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: wall_sec() + by_sec)
    monkeypatch.setattr(time, "time_ns", lambda: wall_ns() + by_sec * 1_000_000_000)


def test_a_pause_ends_when_its_time_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for by_sec in (-400 * DAY_SEC, 400 * DAY_SEC):
        pause = Pause(tmp_path)
        pause.pause(3_600_000_000, 0)
        with monkeypatch.context() as patch:
            wall_ns = time.time_ns
            patch.setattr(time, "time_ns", lambda: wall_ns() + by_sec * 1_000_000_000)  # noqa: B023
            assert pause.reason
            assert Pause(tmp_path).reason  # after a restart too
            later_usec = boottime_usec() + 3_600_000_001
            patch.setattr(pause_module, "boottime_usec", lambda: later_usec)  # noqa: B023
            assert not pause.reason
            assert not Pause(tmp_path).reason


@pytest.mark.usefixtures("jump")
def test_teardowns_settle_and_lines_repeat_by_another_clock() -> None:
    settings = TeardownSettings()
    settler, repeats = Settler(), Repeats()
    began_usec = now_usec()
    settler.add(
        Teardown(unit="a", path="/a", inode=1, phase=Phase.ENDED, source=Source.PAM, heard_usec=began_usec),
        began_usec,
    )
    assert settler.due(settings, began_usec) == []
    assert settler.due(settings, began_usec + settings.settle_max_usec)
    assert [repeats.told("a", "b"), repeats.told("a", "b")] == [False, True]
    assert abs(now_usec() - began_usec) < 60_000_000
