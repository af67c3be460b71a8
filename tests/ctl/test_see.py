"""The verbs that show the leak: what they answer to programs, and what they say where they cannot."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from logindguard.ctl.exits import Exit
from logindguard.ctl.output import json_text
from logindguard.ctl.owners import timers
from logindguard.ctl.past import to_record
from logindguard.ctl.roots import Roots
from logindguard.kernel.charged_files import ChargedFile, Search
from logindguard.kernel.inventory import FILE
from logindguard.model import Booking, Outcome, Phase, Source, Way
from logindguard.record.history import History, HistoryUnavailable
from tests.unit.test_metrics import parsed, value

from . import host
from .conftest import Command, write
from .fake_service import ALICE, NOW_USEC, RECORDS, RESIDUES, SEC, Running
from .past import AWAY, Past, samples


def answer(command: Command, *argv: str) -> Any:
    ran = command(*argv, "--json=short")
    assert (ran.status, ran.err) == (0, "")
    return json.loads(ran.out)


class TestBlame:
    def test_teardowns_and_what_is_dying_add_up(self, command: Command, running: Running) -> None:
        for by in ("unit", "user", "trigger", "slice"):
            rows = answer(command, "blame", f"--by={by}")
            assert sum(row["teardowns"] for row in rows) == 4
            dying = sum(row["dying"] for row in RESIDUES)
            assert sum(row["dying"] for row in rows) == pytest.approx(dying, abs=0.5)  # rounded

    def test_what_hangs_below_users_who_are_not_named(self, command: Command, running: Running) -> None:
        """Their sum has the path of the slice, as what hangs right below that has."""
        running.service.residues = [
            {**RESIDUES[0], "path": "/user.slice", "dying": count} for count in (3, 4)
        ]
        assert sum(row["dying"] for row in answer(command, "blame")) == pytest.approx(7, abs=0.5)

    def test_a_user_by_name_and_number(self, command: Command, running: Running) -> None:
        rows = {row.get("user"): row for row in answer(command, "blame", "--by=user")}
        assert rows["alice"]["uid"] == 61001
        assert (rows["alice"]["teardowns"], rows["alice"]["reclaimed"]) == (1, 1)
        assert rows["alice"]["reason"] == "waits for writeback"

    def test_since(self, command: Command, running: Running) -> None:
        rows = answer(command, "blame", "--by=trigger", "--since=-1h")
        assert {row["trigger"]: row["teardowns"] for row in rows if row["teardowns"]} == {"ssh login": 1}

    def test_who_may_read_the_journal_needs_no_service(self, command: Command, roots: Roots) -> None:
        host.debian(roots)
        command.history = Past()
        rows = json.loads(command("blame", "--by=user", "--json=short", "--quiet").out)
        assert sum(row["teardowns"] for row in rows) == 4
        assert sum(row["dying"] for row in rows) == pytest.approx(5, abs=0.5)

    def test_a_host_without_a_journal(self, command: Command, running: Running, tmp_path: Path) -> None:
        command.history = History(tmp_path)  # an empty one: the service remembers the last records
        rows = answer(command, "blame")
        assert sum(row["teardowns"] for row in rows) == 4

    def test_a_journal_that_cannot_be_read(self, command: Command, running: Running, tmp_path: Path) -> None:
        command.history = History(tmp_path / "none")
        ran = command("blame")
        assert ran.err == "The journal cannot be opened: No such file or directory. The service is asked.\n"
        assert "4 teardowns" in ran.out

    def test_a_journal_that_breaks_off(
        self, command: Command, running: Running, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing is counted twice."""

        first = next(Past().bookings())

        def breaks(self: Past, since_usec: int = 0) -> Iterator[Booking]:
            yield first
            raise HistoryUnavailable("The journal cannot be read: Bad message.")

        command.history = Past()
        monkeypatch.setattr(Past, "bookings", breaks)
        ran = command("blame")
        assert ran.err == "The journal cannot be read: Bad message. The rest is left out.\n"
        assert "1 teardown since" in ran.out

    def test_nothing_at_all(self, command: Command, running: Running) -> None:
        running.service.records, running.service.residues = [], []
        assert command("blame").out == "No teardown was told of.\n"

    def test_units_that_a_timer_starts(self, roots: Roots) -> None:
        write(roots.usr / "lib/systemd/system/logrotate.timer")
        write(roots.etc / "systemd/system/report@.timer")
        assert timers(roots) == {"logrotate.service", "report@*.service"}

    def test_a_row_of_the_bus_is_the_record_again(self) -> None:
        row = next(row for row in RECORDS if row["teardowns"])
        record = to_record({**row, "of_a_later_version": 1})
        assert (record.way, record.outcome, record.freed_bytes) == (Way.AFTER, Outcome.RELEASED, 4_900_000)
        [teardown] = record.teardowns
        assert (teardown.phase, teardown.source, teardown.uid) == (Phase.ENDED, Source.SYSTEMD1, 61001)


def test_no_record_is_shown_where_none_is_asked_for(command: Command, roots: Roots) -> None:
    command.history = Past()
    assert answer(command, "history", "-n", "0") == []


class TestExplain:
    @pytest.mark.parametrize("name", ["user-61001.slice", ALICE, ALICE.strip("/")])
    def test_a_slice_by_name_or_path(self, command: Command, roots: Roots, name: str) -> None:
        host.debian(roots)
        found = answer(command, "explain", name)
        assert (found["path"], found["dying"], found["live_children"]) == (ALICE, 4, 1)
        held = {pin["kind"]: pin["held_bytes"] for pin in found["pins"] if pin["held_bytes"]}
        assert held == {"clean": 9 << 20, "dirty": 1 << 20}

    def test_the_root_slice_is_the_root(self, command: Command, roots: Roots) -> None:
        host.debian(roots)
        assert json.loads(command("--json=short", "explain", "--", "-.slice").out)["path"] == "/"

    def test_another_unit_by_name(self, command: Command, roots: Roots) -> None:
        host.debian(roots)
        assert answer(command, "explain", "session-3.scope")["path"] == f"{ALICE}/session-3.scope"

    def test_what_the_sweep_says(self, command: Command, running: Running, roots: Roots) -> None:
        host.debian(roots)
        found = answer(command, "explain", "user-61001.slice")
        assert (found["reason"], found["next_usec"]) == ("waits for writeback", NOW_USEC + 4 * SEC)

    def test_nothing_charged_explains_it(self, command: Command, roots: Roots) -> None:
        tree = host.debian(roots)
        tree.set(ALICE, dying=4, file=2 << 20)  # which is its live child's
        ran = command("explain", "user-61001.slice")
        assert "Nothing is charged to them." in ran.out
        assert "Inodes that they dirtied may still refer to them" in ran.out

    def test_when_dirty_pages_are_written(self, command: Command, roots: Roots) -> None:
        host.debian(roots)
        write(roots.proc / "sys/vm/dirty_expire_centisecs", "3000\n")
        assert "begins 30s after it was changed" in command("explain", "user-61001.slice").out

    def test_kernel_memory_of_old_kernels(self, command: Command, roots: Roots) -> None:
        tree = host.debian(roots, release="4.19.0-27-amd64")
        stat = tree.directory(ALICE) / "memory.stat"
        tree.set(ALICE, dying=4, file=2 << 20)
        stat.write_text(stat.read_text() + "slab 1048576\n")
        ran = command("explain", "user-61001.slice")
        assert "keeps them until it is freed" in ran.out
        assert "Nothing that is charged holds them" not in ran.out

    @pytest.mark.parametrize("name", ["nothing.slice", "../etc", "/user.slice/none", "none.scope"])
    def test_no_such_cgroup(self, command: Command, roots: Roots, name: str) -> None:
        host.debian(roots)
        ran = command("explain", name)
        assert (ran.status, ran.out) == (Exit.NOT_FOUND, "")
        assert ran.err == f"There is no live cgroup '{name}'.\n"

    def test_files_where_nobody_tells(
        self, command: Command, roots: Roots, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        host.debian(roots)
        monkeypatch.setattr("os.geteuid", lambda: 0)
        ran = command("explain", "user.slice", "--files", "host")
        assert ran.status == Exit.UNAVAILABLE
        assert ran.err.startswith("This kernel has no /proc/kpagecgroup")
        monkeypatch.setattr("os.geteuid", lambda: 1000)
        ran = command("explain", "user.slice", "--files", "host")
        assert (ran.status, ran.err) == (Exit.DENIED, "Only root may find out whose page cache is whose.\n")

    def test_files_of_which_none_is_charged_there(
        self, command: Command, roots: Roots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On a terminal with how far the search is, which is wiped out in the end."""
        host.debian(roots)
        for name in ("kpagecgroup", "self/pagemap"):  # of a machine where no page is charged to anything
            write(roots.proc / name)
        write(tmp_path / "files/a", "a")
        monkeypatch.setattr("os.geteuid", lambda: 0)
        monkeypatch.setattr("logindguard.ctl.verbs.explain.DRAW_SEC", 0)
        words = ("explain", "user-61001.slice", f"--files={tmp_path}/files")
        ran = command(*words, columns=100)
        assert ran.status == 0
        assert "\r\x1b[K1 file, 0B found\r\x1b[K" in ran.out
        assert "None of the files is charged there." in ran.out
        assert "is of files elsewhere" in ran.out
        assert "\x1b[K" not in command(*words).out
        assert answer(command, *words)["files"] == []
        ran = command("explain", "user.slice", f"--files={tmp_path}/none")
        assert (ran.status, ran.err) == (Exit.NOT_FOUND, f"{tmp_path}/none: No such file or directory.\n")

    def test_files_whose_page_cache_it_is(
        self, command: Command, roots: Roots, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Most first, a deleted one with who has it open; what is not shown is counted."""
        host.debian(roots)
        for name in ("kpagecgroup", "self/pagemap"):
            write(roots.proc / name)
        found = [
            ChargedFile(path=f"/var/{n}", charged_bytes=(9 - n) << 20, cached_bytes=9 << 20) for n in range(3)
        ]
        found[0] = replace(found[0], path="/var/a\nb", pid=61)
        search = Search(files=7, charged_bytes=24 << 20, unreadable=2, complete=False, found=found)
        monkeypatch.setattr("logindguard.ctl.verbs.explain.find", lambda *_, **__: search)
        monkeypatch.setattr("os.geteuid", lambda: 0)
        words = ("explain", "user-61001.slice", "--files=/var")
        out = command(*words, "-n", "2").out
        assert "/var/a\\nb" in out
        assert "deleted, open in process 61" in out
        assert "/var/1" in out
        assert "/var/2" not in out
        for line in (
            "1 more file with less, see --full.",
            "The search was stopped: it took too long. Name smaller directories.",
            "2 files could not be read.",
        ):
            assert line in out.splitlines()
        assert "/var/2" in command(*words, "--full").out
        told = answer(command, *words)
        assert [each.get("pid") for each in told["files"]] == [61, None, None]
        assert (told["files_looked_at"], told["complete"]) == (7, False)


class TestMetrics:
    def test_of_the_service(self, command: Command, running: Running) -> None:
        ran = command("metrics")
        assert (ran.status, ran.err) == (0, "")
        series = parsed(ran.out)
        assert value(series, "up") == 1
        assert value(series, "dying_memcgs") == 1249
        assert value(series, "slice_dying_memcgs", slice="user.slice") == 15
        assert value(series, "teardowns_total", trigger="ssh login") == 4300
        assert value(series, "paused_seconds_total", why="request") == 2

    def test_of_the_kernel_alone(self, command: Command, roots: Roots) -> None:
        host.debian(roots)
        series = parsed(command("metrics").out)
        assert value(series, "up") == 0
        assert value(series, "slice_dying_memcgs", slice="user.slice") == 5

    def test_for_programs(self, command: Command, running: Running) -> None:
        found = answer(command, "metrics")
        assert (found["up"], found["dying_count"], found["stolen_pages_total"]) == (True, 1249, 0)


class TestInventory:
    def test_single_memcgs_below_a_cgroup(self, command: Command, roots: Roots) -> None:
        host.debian(roots)
        write(roots.sys / FILE, host.LRU_GEN)
        found = answer(command, "inventory", "user.slice", "-n", "1")
        assert found["source"] == "lru_gen"
        [first] = found["memcgs"]
        assert (first["path"], first["user"]) == (f"{ALICE}/session-3.scope", "alice")
        assert (first["file_bytes"], first["anon_bytes"]) == (1808 * 4096, 9 * 4096)

    @pytest.mark.parametrize("lists", [True, False])
    def test_what_is_misspelt_is_not_found_empty(self, command: Command, roots: Roots, lists: bool) -> None:
        host.debian(roots)
        if lists:
            write(roots.sys / FILE, host.LRU_GEN)
        assert "source" in answer(command, "inventory", "user-61001.slice", "-q")
        ran = command("inventory", "users.slice")
        assert (ran.status, ran.out) == (Exit.NOT_FOUND, "")
        assert ran.err == "There is no cgroup 'users.slice'.\n"

    def test_what_they_hold_is_not_told_while_mglru_is_off(self, command: Command, roots: Roots) -> None:
        host.debian(roots)
        write(roots.sys / FILE, host.LRU_GEN)
        assert command("inventory").out.endswith(
            "MGLRU is off on this machine: what they hold is not told.\n"
        )

    def test_counts_where_the_kernel_lists_none(self, command: Command, roots: Roots) -> None:
        host.debian(roots)
        ran = command("inventory", "--json=short")
        assert ran.err.startswith("Single dying memcgs are listed only by MGLRU")
        found = json.loads(ran.out)
        assert (found["source"], found["dying_count"]) == ("counts", 5)
        assert [row["dying"] for row in found["parents"]] == [4, 1]


class Page(HTMLParser):
    """Every element closed in order; what it refers to, and its text."""

    VOID = ("meta",)

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: Counter[str] = Counter()
        self.refers: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] += 1
        self.refers += [name for name, _ in attrs if name in ("src", "href", "srcset", "onclick", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.mark.parametrize("pretty", [True, False])
def test_json_moves_no_cursor_and_stays_json(pretty: bool) -> None:
    """A user names cgroups as it likes: C1 controls and what turns the direction are no ASCII."""
    value = [{"path": "/user.slice/\x9b2J\u202e\x7f\udcff\U000e0001é"}]
    text = json_text(value, pretty=pretty)
    assert text.translate({10: None, 9: None}).isprintable()
    assert "é" in text
    assert json.loads(text) == value


class TestReport:
    @pytest.fixture
    def past(self, command: Command) -> Past:
        command.history = Past()
        return command.history

    def test_for_programs(self, command: Command, running: Running, past: Past) -> None:
        found = answer(command, "report")
        assert (found["teardowns"], found["dying_count"]) == (3, 1249)
        assert found["until_usec"] - found["since_usec"] == 7 * 86_400 * SEC
        assert len(found["samples"]) == len(samples())
        assert {row.get("user") for row in found["owners"]["user"]} >= {"alice", "bob"}
        assert len(answer(command, "report", "--since=-1d")["samples"]) == 24

    def test_a_page_that_needs_nothing_else(
        self, command: Command, running: Running, past: Past, tmp_path: Path
    ) -> None:
        path = tmp_path / "report.html"
        ran = command("report", f"--html={path}")
        assert (ran.status, ran.out) == (0, f"The report is in {path}.\n")
        text = path.read_text()
        page = Page(text)
        assert page.refers == []
        assert page.seen["script"] == page.seen["link"] == page.seen["img"] == 0
        assert "url(" not in text
        assert "@import" not in text
        assert page.seen["svg"] == 2
        assert page.seen["rect"] == 2 * (168 - len(AWAY))
        assert "alice" in page.words
        assert "prefers-color-scheme: dark" in text

    def test_names_of_others_cannot_change_the_page(
        self, command: Command, running: Running, tmp_path: Path
    ) -> None:
        record = next(row for row in RECORDS if row["teardowns"])
        evil = {**record["teardowns"][0], "unit": "<script>alert(1)</script>\x07.service"}
        running.service.records = [{**record, "teardowns": [evil]}]
        path = tmp_path / "report.html"
        assert command("report", f"--html={path}").status == 0
        page = Page(path.read_text())
        assert page.seen["script"] == 0
        assert "<script>alert(1)</script>\\x07.service" in page.words

    def test_without_samples_it_says_where_they_come_from(self, command: Command, running: Running) -> None:
        assert "No samples in this time" in command("report").out

    def test_a_file_that_cannot_be_written(self, command: Command, running: Running, tmp_path: Path) -> None:
        ran = command("report", f"--html={tmp_path}/none/x.html")
        assert (ran.status, ran.out) == (Exit.OUTPUT, "")
        assert ran.err == f"{tmp_path}/none/x.html cannot be written: No such file or directory.\n"

    def test_a_time_that_is_yet_to_come(self, command: Command, running: Running) -> None:
        ran = command("report", "--since=+1h")
        assert (ran.status, ran.err) == (Exit.USAGE, "--since= must be before now.\n")
