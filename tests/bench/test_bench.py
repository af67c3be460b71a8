"""The benches in small: that they run to their end, tell all that they should, and leave nothing.

No figure is judged here: what is fast enough is said where a machine has nothing else to do.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench import __main__ as program
from tests.bench import drive
from tests.bench.meter import histogram, nth_percent
from tests.bench.result import Bar, Result, Side, read
from tests.bench.table import show, write_tables
from tests.demo.test_native import left_behind

pytestmark = [pytest.mark.native, pytest.mark.timeout(300)]
# The smallest that shows that a bench does what it says.
SCALES = {"storm": 0.001, "big": 0.001, "logins": 0.004, "removal": 0.05}

SMALL = Result(
    bench="storm",
    about="3 dying memcgs",
    size={"count": 3},
    sides=[
        Side(rival="no guard", figures={"wall_sec": 1.5}),
        Side(rival="the guard", figures={"wall_sec": 2.0, "cpu_msec": None}, calls={"<= 64": 2}),
    ],
    bars=[Bar(wanted="all released", found="3 -> 0", met=True)],
    load_before=0.1,
)


@pytest.mark.parametrize("name", program.NATIVE)
def test_in_small(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive, "IDLE_SEC", 0.1)
    monkeypatch.setattr(drive, "CALM_SEC", 0.0)
    monkeypatch.setattr(drive, "SETTLE_SEC", 1.0)
    monkeypatch.setattr(drive, "STILL_SEC", 3.0)  # a busy machine pauses the guard: that is no fault here
    monkeypatch.setattr(program, "raise_when_interrupted", lambda: None)
    # On a thread: asyncio.run() would take the main one's loop away, which pytest-asyncio left open there.
    with ThreadPoolExecutor(1) as thread:
        ended = thread.submit(program.main, [name, "--scale", str(SCALES[name]), "--output", str(tmp_path)])
        assert ended.result() == 0
    [path] = tmp_path.iterdir()
    result = read(path)
    assert result.bench == name
    assert result.bars
    assert all(side.figures for side in result.sides)
    guarded = [side for side in result.sides if side.rival.startswith("the guard")]
    assert guarded
    assert "bar" in show(result)
    assert left_behind(os.getpid()) == []


def test_a_result_is_the_same_when_read_back(tmp_path: Path) -> None:
    path = SMALL.write(tmp_path)
    assert read(path) == SMALL
    assert json.loads(path.read_text())["commit"] == SMALL.commit


def test_a_page_of_tables(tmp_path: Path) -> None:
    SMALL.write(tmp_path)
    missed = replace(SMALL, bench="other", bars=[Bar(wanted="none left", found="1 left", met=False)])
    missed.write(tmp_path)
    page = tmp_path / "page.md"
    write_tables(tmp_path, page)
    text = page.read_text()
    assert text.count("\n## ") == 2
    assert "| wall, s | 1.5 | 2 |" in text
    assert "| calls that took <= 64 us of CPU | 0 | 2 |" in text
    assert "| none left | 1 left | **missed** |" in text


def test_a_histogram_says_how_many_took_how_long() -> None:
    assert histogram([]) == {}
    assert histogram([65, 64, 300]) == {"<= 64": 1, "<= 256": 1, "<= 1000": 1}
    assert histogram([2_000_000]) == {"> 1000000": 1}


def test_a_percentile_is_a_value_that_was_there() -> None:
    values = [float(each) for each in range(1, 1001)]
    assert nth_percent(values, 99.9) == 999
    assert nth_percent(values, 50) == 500
    assert nth_percent([7.0], 99) == 7
