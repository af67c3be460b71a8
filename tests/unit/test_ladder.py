"""The ladder: each rung, the kernel's clocks behind them, and what begins anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from logindguard import ladder
from logindguard.config import SEC, SweepSettings
from logindguard.kernel.writeback import Clocks, read_clocks
from logindguard.ladder import MAX_TRIES, NUDGE_USEC, SOON_USEC, Rung, Stand
from logindguard.model import Decision, Outcome, Reclaim, Skip, Wait
from logindguard.standings import Standing, Standings

SETTINGS = SweepSettings()
CLOCKS = Clocks()
WRITEBACK = Wait(reason="what is left waits for writeback")
RECLAIM = Reclaim(max_bytes=1, keep_mapped=False, window_usec=1, write_usec=1, reason="")
OUTSIDE = Wait(reason="the host is under memory pressure", outside=True)


def climbed(clocks: Clocks, tries: int, stand: Stand | None = None) -> tuple[list[Rung], list[int]]:
    """The rungs and the waits, in seconds, of a residue that gives nothing."""
    stand, now_usec = stand or Stand(), 1_000 * SEC
    rungs, waits = [], []
    for _ in range(tries):
        stand = ladder.after_try(stand, Outcome.UNCHANGED, WRITEBACK, clocks, SETTINGS, now_usec)
        rungs.append(stand.rung)
        waits.append((stand.next_usec - now_usec) // SEC)
        now_usec = stand.next_usec
    return rungs, waits


def test_tries_span_the_kernels_clocks_then_a_nudge_then_the_verdict() -> None:
    rungs, waits = climbed(CLOCKS, 12)
    assert rungs == [Rung.WRITEBACK] * 8 + [Rung.NUDGE] + [Rung.VERDICT] * 3
    assert waits == [10] * 7 + [5, NUDGE_USEC // SEC, 300, 300, 300]
    assert sum(waits[:8]) * SEC == CLOCKS.settled_usec


@pytest.mark.parametrize(
    "clocks",
    [
        Clocks(expire_usec=600 * SEC),
        Clocks(writeback_usec=60 * SEC),
        Clocks(commit_usec=300 * SEC),
        Clocks(expire_usec=0, writeback_usec=0),
        Clocks(expire_usec=0, writeback_usec=0, commit_usec=0),
    ],
)
def test_other_clocks_are_waited_for_with_few_tries(clocks: Clocks) -> None:
    rungs, waits = climbed(clocks, MAX_TRIES + 2)
    waiting = rungs.index(Rung.NUDGE)
    assert waiting <= MAX_TRIES
    assert sum(waits[:waiting]) * SEC >= clocks.settled_usec - MAX_TRIES * SEC
    assert rungs[-1] is Rung.VERDICT


@pytest.mark.parametrize("outcome", [Outcome.PARTIAL, Outcome.UNCHANGED])
def test_what_was_put_off_for_a_moment_stays_where_it_is(outcome: Outcome) -> None:
    stand = Stand(rung=Rung.WRITEBACK, tries=3, since_usec=5)
    births = Wait(reason="cgroups are born beside it just now", outside=True, soon=True)
    after = ladder.after_try(stand, outcome, births, CLOCKS, SETTINGS, 1_000 * SEC)
    assert after == replace(stand, next_usec=1_000 * SEC + SOON_USEC)
    assert not ladder.judged(replace(after, rung=Rung.VERDICT), outcome, births)


@pytest.mark.parametrize("rung", list(Rung))
def test_what_gives_begins_anew(rung: Rung) -> None:
    stand = Stand(rung=rung, tries=9, since_usec=SEC, next_usec=100 * SEC)
    for outcome, progress in ((Outcome.PARTIAL, False), (Outcome.UNCHANGED, True), (Outcome.SKIPPED, True)):
        after = ladder.after_try(stand, outcome, WRITEBACK, CLOCKS, SETTINGS, 100 * SEC, progress=progress)
        assert after == Stand(since_usec=100 * SEC, next_usec=105 * SEC)


@pytest.mark.parametrize(
    ("outcome", "decision", "rung", "in_sec"),
    [
        (Outcome.PARTIAL, RECLAIM, Rung.RECLAIM, 0),  # its time was over while it still gave
        (Outcome.PARTIAL, WRITEBACK, Rung.RECLAIM, 5),
        (Outcome.UNCHANGED, RECLAIM, Rung.WRITEBACK, 10),
        (Outcome.SKIPPED, WRITEBACK, Rung.WRITEBACK, 10),
        (Outcome.MAPPED_KEPT, WRITEBACK, Rung.VERDICT, 300),
        (Outcome.SKIPPED, Skip(reason=""), Rung.VERDICT, 300),
        (Outcome.FAILED, WRITEBACK, Rung.RECLAIM, 10),
        (Outcome.SKIPPED, OUTSIDE, Rung.RECLAIM, 10),
    ],
)
def test_first_try(outcome: Outcome, decision: Decision, rung: Rung, in_sec: int) -> None:
    after = ladder.after_try(Stand(), outcome, decision, CLOCKS, SETTINGS, 1_000)
    assert (after.rung, after.next_usec) == (rung, 1_000 + in_sec * SEC)


@pytest.mark.parametrize("rung", list(Rung))
@pytest.mark.parametrize(("outcome", "decision"), [(Outcome.SKIPPED, OUTSIDE), (Outcome.FAILED, WRITEBACK)])
def test_what_says_nothing_of_the_residue_moves_none(
    rung: Rung, outcome: Outcome, decision: Decision
) -> None:
    stand, waits = Stand(rung=rung, since_usec=SEC), []
    for now_usec in range(0, 80_000 * SEC, 1_000 * SEC):
        stand = ladder.after_try(stand, outcome, decision, CLOCKS, SETTINGS, now_usec)
        waits.append((stand.next_usec - now_usec) // SEC)
    assert stand.rung is rung
    assert waits[:6] == [10, 20, 40, 80, 160, 300]
    assert set(waits[6:]) == {300}


@pytest.mark.parametrize(
    ("rung", "outcome", "decision", "expected"),
    [
        (Rung.VERDICT, Outcome.UNCHANGED, WRITEBACK, True),
        (Rung.VERDICT, Outcome.MAPPED_KEPT, WRITEBACK, True),
        (Rung.VERDICT, Outcome.UNCHANGED, RECLAIM, True),
        (Rung.VERDICT, Outcome.SKIPPED, Skip(reason="says it all"), False),
        (Rung.VERDICT, Outcome.SKIPPED, OUTSIDE, False),
        (Rung.VERDICT, Outcome.FAILED, WRITEBACK, False),
        (Rung.NUDGE, Outcome.UNCHANGED, WRITEBACK, False),
        (Rung.RECLAIM, Outcome.PARTIAL, WRITEBACK, False),
    ],
)
def test_when_a_verdict_is_due(rung: Rung, outcome: Outcome, decision: Decision, expected: bool) -> None:
    assert ladder.judged(Stand(rung=rung), outcome, decision) is expected


# The clocks


def proc(directory: Path, *, expire: str, writeback: str, mounts: str) -> Path:
    (directory / "sys/vm").mkdir(parents=True)
    (directory / "self").mkdir()
    (directory / "sys/vm/dirty_expire_centisecs").write_text(expire)
    (directory / "sys/vm/dirty_writeback_centisecs").write_text(writeback)
    (directory / "self/mounts").write_bytes(mounts.encode())
    return directory


@pytest.mark.parametrize(
    ("mounts", "commit_sec"),
    [
        ("/dev/vda / ext4 rw,relatime 0 0\n", 5),
        ("/dev/vda / ext4 rw,commit=60,relatime 0 0\n/dev/vdb /x ext4 rw,commit=10 0 0\n", 60),
        ("/dev/vda / ext4 rw,commit=0 0 0\n", 5),
        ("/dev/vda / ext4 rw,commit=many 0 0\n", 5),
        ("/dev/vda / btrfs rw,subvol=/@ 0 0\n", 30),
        ("tmpfs /run tmpfs rw,commit=99 0 0\nshort\n", 5),
        ("", 5),
        # Who may mount names the place: an em space is no separator, and only \\n ends a line.
        ("x /home/alice/a\u2003ext4\u2003rw,commit=99 fuse.x rw 0 0\n", 5),
        ("x /home/alice/a\rx\u2003y\u2003ext4\u2003rw,commit=99 fuse.x rw 0 0\n", 5),
    ],
)
def test_the_clocks_of_a_host(tmp_path: Path, mounts: str, commit_sec: int) -> None:
    clocks = read_clocks(proc(tmp_path, expire="1200\n", writeback="100\n", mounts=mounts))
    assert clocks == Clocks(expire_usec=12 * SEC, writeback_usec=1 * SEC, commit_usec=commit_sec * SEC)


@pytest.mark.parametrize("text", ["", "many\n"])
def test_clocks_that_cannot_be_read_are_the_usual_ones(tmp_path: Path, text: str) -> None:
    assert read_clocks(tmp_path / "none") == Clocks()
    assert read_clocks(proc(tmp_path, expire=text, writeback=text, mounts="")) == Clocks()


def test_a_flusher_that_never_wakes(tmp_path: Path) -> None:
    assert read_clocks(proc(tmp_path, expire="3000", writeback="0", mounts="")).writeback_usec == 0


# What is remembered


def test_standings() -> None:
    standings = Standings()
    assert standings.get(7) == Standing()
    assert standings.next_usec(99) == 99
    standings.put(0, Standing(path="/unread"))
    standings.put(7, Standing(path="/a", stand=Stand(next_usec=50)))
    standings.put(8, Standing(path="/b", stand=Stand(next_usec=60)))
    assert list(standings.due(50)) == [(7, "/a")]
    assert standings.next_usec(99) == 50
    standings.put(9, Standing(path="/new"))
    standings.keep({8}, of=frozenset({7, 8}))
    assert standings.inodes() == {8, 9}
    assert standings.pop(8).path == "/b"
    assert standings.pop(8) == Standing()


def test_no_more_standings_than_fit_while_no_pass_forgets_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logindguard.standings.MAX_KEPT", 3)
    standings = Standings()
    for inode in (1, 2, 3, 1, 4):
        standings.pop(inode)
        standings.put(inode, Standing(path=f"/{inode}"))
    assert standings.inodes() == {3, 1, 4}
