"""The demo's judgement and its way of telling; `make demo-vm` itself is the test of the rest."""

from __future__ import annotations

import io
import os
import re
from dataclasses import replace
from typing import TextIO

import pytest

from tests.demo.progress import Progress
from tests.demo.vm import Round, shortcomings, summary

LOGINS = 24
WITHOUT = Round(
    dying_before=0, dying_after=28, waited_sec=35, residue_bytes=100 << 20, stolen_pages=0, floor=2
)
GUARDED = replace(
    WITHOUT,
    dying_after=1,
    residue_bytes=4096,
    floor=1,
    freed_bytes=100 << 20,
    release_usec=470_000.0,
    cpu_usec=4_380_000,
)


def test_a_good_run_has_no_shortcoming() -> None:
    assert shortcomings(LOGINS, WITHOUT, GUARDED) == []


@pytest.mark.parametrize(
    ("without", "guarded", "sentence"),
    [
        (replace(WITHOUT, dying_after=5), replace(GUARDED, dying_after=0), "there was nothing to guard"),
        (WITHOUT, replace(GUARDED, dying_after=4), "The guard left 4 dying memcgs"),
        (WITHOUT, replace(GUARDED, dying_after=8, floor=8), "The guard left 8 dying memcgs"),
        (WITHOUT, replace(GUARDED, stolen_pages=1), "The live neighbour lost 1 pages"),
        (WITHOUT, replace(GUARDED, release_usec=None), "no record of a release"),
    ],
)
def test_each_shortcoming_is_a_sentence(without: Round, guarded: Round, sentence: str) -> None:
    (failure,) = shortcomings(LOGINS, without, guarded)
    assert sentence in failure
    assert failure.endswith(".")


def test_table_has_both_sides() -> None:
    lines = summary(LOGINS, WITHOUT, GUARDED).splitlines()
    assert re.fullmatch(r"dying memcgs under user\.slice after +28 +1", lines[3])
    assert re.fullmatch(r"page cache held by dying memcgs after +100\.0M +4K", lines[6])
    assert re.fullmatch(r"seconds from logout to release, median +- +0\.47", lines[9])
    assert len({len(line) for line in lines}) == 1


def told(stream: TextIO) -> None:
    progress = Progress(stream)
    progress.step("booted")
    progress.now("1 of 2")
    progress.now("2 of 2")
    progress.verdict("Done.", good=True)


def on_terminal() -> str:
    main, terminal = os.openpty()
    with open(terminal, "w") as stream:
        told(stream)
        stream.flush()
        text = b""
        while b"Done." not in text:  # a terminal hands over what it has so far
            text += os.read(main, 4096)
    os.close(main)
    return text.decode()


def test_progress_is_plain_lines_off_a_terminal() -> None:
    stream = io.StringIO()
    told(stream)
    assert re.fullmatch(r"\[  0 s\] booted\nDone\.\n", stream.getvalue())


def test_progress_rewrites_its_line_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\r\033[K[  0 s] … 2 of 2\r\033[K\033[32mDone." in on_terminal()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\r\033[KDone." in on_terminal()
