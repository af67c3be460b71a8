"""Times, tables, colours and the pager, each by itself."""

from __future__ import annotations

import pytest

from logindguard.ctl import pager
from logindguard.ctl.command_line import help_text
from logindguard.ctl.records import dying_change, shown_residue, what
from logindguard.ctl.table import Cell, Column, footer, table
from logindguard.ctl.terminal import Colour, Terminal, ellipsize, look_at, width
from logindguard.ctl.times import ago, parse_duration, parse_time, stamp
from logindguard.ctl.verbs.top import sparkline
from logindguard.model import UNNAMED

from .conftest import Sink
from .fake_service import NOW_USEC, SEC

DAY = 86_400 * SEC
TEN_HOURS = 36_000 * SEC  # NOW_USEC is ten in the morning


class TestTimes:
    @pytest.mark.parametrize(
        ("written", "usec"),
        [
            ("now", NOW_USEC),
            ("today", NOW_USEC - TEN_HOURS),
            ("yesterday", NOW_USEC - TEN_HOURS - DAY),
            ("tomorrow", NOW_USEC - TEN_HOURS + DAY),
            ("2026-01-01 10:00", NOW_USEC),
            ("2026-01-01 10:00:30", NOW_USEC + 30 * SEC),
            ("2026-01-01T10:00:30", NOW_USEC + 30 * SEC),
            ("2026-01-01 10:00 UTC", NOW_USEC),
            ("2026-01-01", NOW_USEC - TEN_HOURS),
            ("10:00", NOW_USEC),
            ("09:59:59", NOW_USEC - SEC),
            ("-2h", NOW_USEC - 7200 * SEC),
            ("- 90", NOW_USEC - 90 * SEC),
            ("+1min", NOW_USEC + 60 * SEC),
            ("2h ago", NOW_USEC - 7200 * SEC),
            ("1w 1d ago", NOW_USEC - 8 * DAY),
            ("@1000", 1000 * SEC),
            ("@1000.5", 1000 * SEC + 500_000),
        ],
    )
    def test_as_journalctl(self, written: str, usec: int) -> None:
        assert parse_time(written, NOW_USEC) == usec

    @pytest.mark.parametrize(
        "written",
        [
            "",
            "soon",
            "-",
            "2026-13-01",
            "25:00",
            "@",
            "@1.1234567",
            "ago",
            "- 1x",
            "-60y",
            "-9999999999d",
            "+9999999999d",
            "1969-12-31",
        ],
    )
    def test_not_times(self, written: str) -> None:
        with pytest.raises(ValueError, match=r".*"):
            parse_time(written, NOW_USEC)

    def test_summer_time_is_of_the_day_that_is_meant(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import time

        monkeypatch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        assert parse_time("2026-01-01 11:00", NOW_USEC) == NOW_USEC
        assert parse_time("2026-07-01 12:00", NOW_USEC) == parse_time("2026-07-01 10:00 UTC", NOW_USEC)
        assert stamp(NOW_USEC) == "Thu 2026-01-01 11:00:00 CET"

    def test_shown(self) -> None:
        assert stamp(NOW_USEC) == "Thu 2026-01-01 10:00:00 UTC"
        assert ago(NOW_USEC - 182_900_000, NOW_USEC) == "3min 2s ago"
        assert ago(NOW_USEC + 4_500_000, NOW_USEC) == "in 4s"
        assert ago(NOW_USEC - 1, NOW_USEC) == "now"

    def test_durations(self) -> None:
        assert parse_duration("90") == 90 * SEC
        assert parse_duration("1.5") == 1_500_000
        assert parse_duration("1h 30min") == 5400 * SEC
        with pytest.raises(ValueError, match="x"):
            parse_duration("x")
        with pytest.raises(ValueError, match="9999999999d"):
            parse_duration("9999999999d")


class TestTable:
    COLUMNS = (
        Column("PATH", shrink=12, keep_end=True),
        Column("N", right=True),
        Column("EXTRA", wide=True),
        Column("WHY", shrink=8),
    )
    ROWS = (
        ("user.slice/user-1000.slice/user@1000.service", "7", "more", "waits for writeback"),
        ("", Cell("1234", Colour.RED), "", ""),
    )

    def test_all_of_it(self) -> None:
        assert table(self.COLUMNS, self.ROWS, Terminal()) == [
            "PATH                                            N EXTRA WHY",
            "user.slice/user-1000.slice/user@1000.service    7 more  waits for writeback",
            "-                                            1234 -     -",
        ]

    def test_it_fits(self) -> None:
        for columns in range(30, 90):
            lines = table(self.COLUMNS, self.ROWS, Terminal(columns=columns))
            assert max(width(line) for line in lines) <= columns
            assert ("EXTRA" in lines[0]) == (columns >= 32)

    def test_full_is_full(self) -> None:
        assert table(self.COLUMNS, self.ROWS, Terminal(columns=40), full=True) == table(
            self.COLUMNS, self.ROWS, Terminal()
        )

    def test_colours_take_no_room(self) -> None:
        lines = table(self.COLUMNS, self.ROWS, Terminal(colour=True))
        assert lines[2].replace(Colour.RED, "").replace(Colour.GREY, "").replace("\x1b[0m", "") == (
            "-                                            1234 -     -"
        )

    def test_footer(self) -> None:
        assert footer(1, "slice") == "1 slice listed."
        assert footer(3, "slice") == "3 slices listed."


class TestTerminal:
    @pytest.mark.parametrize(
        ("tty", "environment", "colour"),
        [
            (True, {"TERM": "xterm"}, True),
            (True, {"TERM": "dumb"}, False),
            (True, {}, False),
            (True, {"TERM": "xterm", "NO_COLOR": ""}, False),
            (True, {"TERM": "xterm", "NO_COLOR": "1", "SYSTEMD_COLORS": "1"}, True),
            (True, {"TERM": "xterm", "SYSTEMD_COLORS": "no"}, False),
            (False, {"TERM": "xterm"}, False),
            (False, {"SYSTEMD_COLORS": "256"}, True),
        ],
    )
    def test_colour(self, tty: bool, environment: dict[str, str], colour: bool) -> None:
        assert look_at(Sink(tty=tty), environment).colour is colour

    def test_width(self) -> None:
        assert look_at(Sink(tty=True), {"COLUMNS": "123"}).columns == 123
        assert look_at(Sink(tty=True), {"COLUMNS": "wide"}).columns == 80
        assert look_at(Sink(), {"COLUMNS": "123"}).columns is None

    def test_ellipsis(self) -> None:
        assert ellipsize("abcdef", 6) == "abcdef"
        assert ellipsize("abcdef", 4) == "abc…"
        assert ellipsize("user.slice/user-1000.slice", 12, keep_end=True) == "user…0.slice"
        assert width(ellipsize("日本語のユニット", 7)) <= 7
        assert width("e\u0301") == 1

    def test_sparkline(self) -> None:
        assert sparkline([0, 1, 4, 8], 6, 8) == "   ▁▄█"
        assert sparkline([5, 5], 2, 5) == "██"
        assert sparkline(list(range(9)), 3, 8) == "▆▇█"
        assert sparkline([0, 0], 2, 0) == "  "

    def test_help_fits_a_terminal(self) -> None:
        lines = help_text().splitlines()
        assert max(len(line) for line in lines) <= 80
        assert lines[-1] == "See the logindguardctl(1) man page for details."


class TestPager:
    @pytest.mark.parametrize(
        ("environment", "words"),
        [
            ({}, ["less"]),
            ({"PAGER": "more -d"}, ["more", "-d"]),
            ({"PAGER": "more", "SYSTEMD_PAGER": "less -X"}, ["less", "-X"]),
            ({"SYSTEMD_PAGER": ""}, []),
            ({"PAGER": "cat"}, []),
        ],
    )
    def test_which(self, environment: dict[str, str], words: list[str]) -> None:
        assert pager.command(environment, elevated=False) == words

    def test_with_anothers_rights_only_a_harmless_one(self) -> None:
        assert pager.command({"PAGER": "vim -"}, elevated=True) == ["less"]
        assert pager.settings({}, elevated=True)["LESSSECURE"] == "1"
        assert pager.command({"PAGER": "vim -", "SYSTEMD_PAGERSECURE": "0"}, elevated=True) == ["vim", "-"]
        assert "LESSSECURE" not in pager.settings({"SYSTEMD_PAGERSECURE": "0"}, elevated=True)

    def test_settings(self) -> None:
        assert pager.settings({}, elevated=False) == {"LESS": "FRSXMK", "LESSCHARSET": "utf-8"}
        assert pager.settings({"SYSTEMD_LESS": "R"}, elevated=False)["LESS"] == "R"


class TestWhatARecordIsAbout:
    def test_it_counts_what_it_does_not_name(self) -> None:
        teardowns = [{"unit": f"session-{number}.scope", "session_id": str(number)} for number in (1, 2)]
        assert what({"teardowns": []}) == ""
        assert dying_change({"dying_before": 3, "dying_after": 1, "target_inode": 7}) == "3 -> 1"
        assert dying_change({"dying_before": 0, "dying_after": 0, "target_inode": 0}) == ""
        assert what({"teardowns": teardowns[:1]}) == "session 1"
        assert what({"teardowns": teardowns}) == "2 sessions"
        assert what({"teardowns": teardowns, "context": {UNNAMED: "40"}}) == "42 sessions"


def test_what_other_users_have_below_a_slice_is_not_the_slice() -> None:
    assert shown_residue({"path": "/user.slice", "inode": 7}) == "user.slice"
    assert shown_residue({"path": "/user.slice"}) == "user.slice/*"
