"""Quantities in words, and foreign names that must not pass for anything else."""

from __future__ import annotations

import pytest

from logindguard import text

MIB = 1 << 20


@pytest.mark.parametrize(
    ("count_bytes", "expected"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1K"),
        (1536, "1.5K"),
        (MIB - 1, "1M"),
        (MIB, "1M"),
        (12 * MIB + MIB // 2, "12.5M"),
        (-2 * MIB, "-2M"),
        (3 << 30, "3G"),
        (5000 << 40, "5000T"),
    ],
)
def test_size(count_bytes: int, expected: str) -> None:
    assert text.size(count_bytes) == expected


@pytest.mark.parametrize(
    ("usec", "expected"),
    [
        (0, "0s"),
        (1, "1us"),
        (999, "999us"),
        (4_000, "4ms"),
        (4_250, "4.2ms"),
        (300_000, "300ms"),
        (999_999, "999ms"),
        (1_234_567, "1.2s"),
        (59_999_999, "59.9s"),
        (60_000_000, "1min"),
        (182_000_000, "3min 2s"),
        (3_600_000_000, "1h"),
        (3_601_000_000, "1h 1s"),
        (90_061_000_000, "1d 1h"),
        (-300_000, "-300ms"),
    ],
)
def test_span(usec: int, expected: str) -> None:
    assert text.span(usec) == expected


@pytest.mark.parametrize(
    ("foreign", "expected"),
    [
        ("session-3.scope", "session-3.scope"),
        ("run-\\x2d.scope", "run-\\x2d.scope"),
        ("a\nPRIORITY=0", "a\\nPRIORITY=0"),
        ("a\x00b\x1b[31m\x7f\x9b", "a\\x00b\\x1b[31m\\x7f\\x9b"),
        ("a\u2028b\u202ec", "a\\u2028b\\u202ec"),
        ("\udcff", "\\udcff"),
        ("größe …", "größe …"),
    ],
)
def test_printable(foreign: str, expected: str) -> None:
    assert text.printable(foreign) == expected


def test_words() -> None:
    assert text.counted(1, "session") == "1 session"
    assert text.counted(0, "session") == "0 sessions"
    assert text.listed(["a", "b", "c"]) == "a, b, c"
    assert text.listed(["a", "b", "c", "d"]) == "a, b, c…"
    assert text.quoted("a\nb") == "'a\\nb'"
