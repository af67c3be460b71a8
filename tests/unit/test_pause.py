"""The pause: kept over restarts, ended by itself, and in force where it cannot be read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from logindguard import pause as pause_module
from logindguard.pause import Pause, PauseError, boottime_usec


def kept(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def test_none_at_first(tmp_path: Path) -> None:
    assert Pause(tmp_path).reason == ""


def test_it_outlives_a_restart(tmp_path: Path) -> None:
    Pause(tmp_path).pause(0, 0)
    again = Pause(tmp_path)
    assert again.reason == "paused until it is resumed"
    assert again.details == "paused by root until it is resumed"
    assert again.until_realtime_usec == 0
    again.resume()
    assert again.reason == ""
    assert Pause(tmp_path).reason == ""
    assert kept(tmp_path) == []


def test_a_deadline_passes_while_the_service_is_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Pause(tmp_path).pause(60_000_000, 1000)
    assert Pause(tmp_path).reason.startswith("paused until 2")
    assert Pause(tmp_path).details.startswith("paused by uid 1000 until 2")
    later_usec = boottime_usec() + 61_000_000
    monkeypatch.setattr(pause_module, "boottime_usec", lambda: later_usec)
    assert Pause(tmp_path).reason == ""
    assert Pause(tmp_path).details == ""


async def test_it_ends_by_itself_and_says_so(tmp_path: Path) -> None:
    told: list[str] = []
    pause = Pause(tmp_path, lambda: told.append(pause.details))
    task = asyncio.create_task(pause.run())
    await asyncio.sleep(0)
    pause.pause(50_000, 0)
    async with asyncio.timeout(10):
        while told[-1]:  # noqa: ASYNC110  # what is waited for sets no event
            await asyncio.sleep(0.005)
    assert len(told) == 2
    assert told[0].startswith("paused by root until 2")
    assert pause.reason == ""
    assert kept(tmp_path) == []
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"uid": "0"}', '{"uid": -1}', '{"uid": 0, "more": 1}', "[" * 100_000, "null"],
)
def test_a_damaged_file_is_a_pause(tmp_path: Path, text: str) -> None:
    (tmp_path / "paused").write_text(text)
    pause = Pause(tmp_path)
    assert "cannot be read (it is damaged): resume to go on" in pause.reason
    assert pause.details == pause.reason
    pause.resume()
    assert pause.reason == ""


def test_a_file_that_cannot_be_opened_is_a_pause(tmp_path: Path) -> None:
    (tmp_path / "paused").mkdir()
    assert "cannot be read (Is a directory)" in Pause(tmp_path).reason


@pytest.mark.parametrize("act", [lambda pause: pause.pause(0, 0), lambda pause: pause.resume()])
def test_what_cannot_be_kept_is_refused(tmp_path: Path, act: Callable[[Pause], None]) -> None:
    told: list[str] = []
    pause = Pause(tmp_path, lambda: told.append(pause.details))
    (tmp_path / "paused").mkdir()
    (tmp_path / "paused" / "x").touch()
    with pytest.raises(PauseError):
        act(pause)
    assert told == []
    assert pause.reason == ""
