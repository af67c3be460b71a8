from __future__ import annotations

from dataclasses import replace

import pytest

from logindguard import policy
from logindguard.config import Config, Units
from logindguard.model import Reading, Reclaim, Residue, Skip, Wait, Way

MIB = 1 << 20
CONFIG = Config()


def residue(**more: int) -> Residue:
    defaults = {"dying": 5, "file_bytes": 40 * MIB}
    return Residue(path="/user.slice", inode=7, **(defaults | more))


def reading(of: Residue | None = None, **more: object) -> Reading:
    base = Reading(
        residue=of or residue(),
        live_children=3,
        own_pages=False,
        permanent=True,
        headroom_bytes=None,
        available_bytes=1 << 30,
        swap_on=False,
        refuses_swap=False,
        memory_some_percent=0.0,
        predicted_write_usec=300,
    )
    return replace(base, **more)  # type: ignore[arg-type]  # the fields' own types, by name


@pytest.mark.parametrize(
    ("unit", "include", "exclude", "expected"),
    [
        ("session-3.scope", ("session-*.scope",), (), True),
        ("session-c12.scope", ("session-*.scope",), (), True),
        ("session-3.scope", ("session-*.scope",), ("session-3*",), False),
        ("ssh.service", ("session-*.scope", "user@*.service"), (), False),
        ("SESSION-3.scope", ("session-*.scope",), (), False),
        ("user-1000.slice", Units().include, Units().exclude, True),
        ("cron-daily.service", Units().include, (), True),
        ("run-r1234.scope", Units().include, (), True),
        ("anything", (), (), False),
    ],
)
def test_covers(unit: str, include: tuple[str, ...], exclude: tuple[str, ...], expected: bool) -> None:
    assert policy.covers(unit, Units(include=include, exclude=exclude)) is expected


@pytest.mark.parametrize(
    ("case", "kind", "words"),
    [
        (reading(residue(dying=0)), Skip, "nothing dying"),
        (reading(own_pages=True), Skip, "pages of its own"),
        (reading(live_children=4_001), Skip, "more than 4000 live cgroups"),
        (reading(memory_some_percent=10.0), Wait, "under memory pressure (10 % some)"),
        (reading(available_bytes=60 * MIB), Wait, "too little free memory"),
        (reading(headroom_bytes=60 * MIB), Wait, "too little headroom"),
        (reading(residue(shmem_bytes=4096), swap_on=True), Skip, "shared memory"),
        (reading(residue(anon_bytes=MIB), swap_on=True), Skip, "anonymous memory"),
        (reading(predicted_write_usec=50_000, permanent=False), Skip, "predicted to take 50000 us"),
        (reading(residue(mapped_bytes=40 * MIB)), Wait, "mapped by live processes"),
        (reading(residue(mapped_bytes=9 * MIB), mapped_lost_bytes=MIB + 1), Wait, "mapped by live processes"),
        (reading(residue(mapped_bytes=9 * MIB), spares_mapped=False), Wait, "MGLRU"),
        (reading(residue(mapped_bytes=36 * MIB)), Wait, "mapped by live processes"),  # too little to gain
        (reading(residue(dirty_bytes=40 * MIB)), Wait, "waits for writeback"),
        (reading(residue(file_bytes=0)), Wait, "holds no page cache"),
        (reading(residue(file_bytes=MIB, shmem_bytes=MIB)), Wait, "holds no page cache"),
    ],
)
def test_what_is_left_alone(case: Reading, kind: type, words: str) -> None:
    decision = policy.decide(case, CONFIG)
    assert isinstance(decision, kind)
    assert words in decision.reason


@pytest.mark.parametrize(
    ("case", "outside"),
    [
        (reading(memory_some_percent=10.0), True),
        (reading(available_bytes=60 * MIB), True),
        (reading(headroom_bytes=60 * MIB), True),
        (reading(residue(dirty_bytes=40 * MIB)), False),
        (reading(residue(mapped_bytes=40 * MIB)), False),
        (reading(residue(file_bytes=0)), False),
    ],
)
def test_what_says_nothing_of_the_residue(case: Reading, outside: bool) -> None:
    decision = policy.decide(case, CONFIG)
    assert isinstance(decision, Wait)
    assert decision.outside is outside


def test_a_slow_memory_stat_is_left_to_the_sweep() -> None:
    slow = reading(read_usec=800_000)
    decision = policy.decide(slow, CONFIG, Way.AFTER)
    assert isinstance(decision, Wait)
    assert decision.reason == "reading memory.stat takes 800 ms here: left to the sweep"
    assert isinstance(policy.decide(slow, CONFIG, Way.SWEEP), Reclaim)


@pytest.mark.parametrize(
    ("case", "max_bytes", "keep_mapped"),
    [
        (reading(), 40 * MIB, False),
        (reading(memory_some_percent=None), 40 * MIB, False),
        (reading(headroom_bytes=64 * MIB), 40 * MIB, False),
        (reading(predicted_write_usec=50_000), 40 * MIB, False),
        (reading(residue(mapped_bytes=8 * MIB)), 40 * MIB, False),  # few: taken along
        (reading(residue(mapped_bytes=30 * MIB)), 10 * MIB, True),
        (reading(residue(dirty_bytes=10 * MIB, writeback_bytes=5 * MIB)), 25 * MIB, False),
        (reading(residue(shmem_bytes=MIB), swap_on=True, refuses_swap=True), 39 * MIB, False),
        (reading(residue(shmem_bytes=MIB)), 39 * MIB, False),  # no swap, nowhere to go
        (reading(residue(anon_bytes=64 << 10), swap_on=True), 40 * MIB, False),  # noise of two readings
    ],
)
def test_what_is_reclaimed(case: Reading, max_bytes: int, keep_mapped: bool) -> None:
    decision = policy.decide(case, CONFIG)
    assert isinstance(decision, Reclaim)
    assert (decision.max_bytes, decision.keep_mapped) == (max_bytes, keep_mapped)
    assert decision.window_usec <= 1_000_000


SHARED = replace(CONFIG, reclaim=replace(CONFIG.reclaim, shared=True))


def unshielded(of: Residue | None = None, **more: object) -> Reading:
    """On cgroup v1: the count is that of the whole machine."""
    return reading(of, **{"shields": False, **more})


@pytest.mark.parametrize(
    ("case", "kind", "words"),
    [
        (unshielded(residue(file_bytes=0)), Skip, "nothing dying is left"),
        (unshielded(own_pages=True), Skip, "pages of its own"),  # the root
        (unshielded(swap_on=True), Skip, "swap is in use"),
        (unshielded(live_bytes=4 * MIB + 1), Wait, "hold 4096 KiB, over 0.1 (reclaim.shared_ratio) of"),
        (
            unshielded(
                residue(file_bytes=30 * MIB), live_bytes=3 * MIB, gave_bytes=10 * MIB, lost_bytes=MIB + 1
            ),
            Wait,
            "hold 3072 KiB and lost 1024 KiB of late, over 0.1 (reclaim.shared_ratio) of the 40960 KiB",
        ),
        (unshielded(memory_some_percent=10.0), Wait, "under memory pressure"),
        (unshielded(available_bytes=60 * MIB), Wait, "too little free memory"),
        (unshielded(residue(mapped_bytes=9 * MIB)), Wait, "much of it is mapped"),
        (unshielded(residue(dirty_bytes=40 * MIB)), Wait, "waits for writeback"),
        (unshielded(residue(dirty_bytes=15 * MIB, writeback_bytes=6 * MIB)), Wait, "waits for writeback"),
        (unshielded(predicted_write_usec=50_000, permanent=False), Skip, "predicted to take 50000 us"),
    ],
)
def test_what_is_left_alone_where_nothing_is_shielded(case: Reading, kind: type, words: str) -> None:
    decision = policy.decide(case, SHARED)
    assert isinstance(decision, kind)
    assert words in decision.reason
    assert getattr(decision, "keeps_mapped", False) == ("mapped" in words)


@pytest.mark.parametrize(
    ("case", "ratio"),
    [
        (unshielded(), 0.0),
        (unshielded(live_bytes=4 * MIB), 0.1),
        (unshielded(live_bytes=40 * MIB), 1.0),
        (unshielded(residue(file_bytes=MIB), live_bytes=3 * MIB, gave_bytes=39 * MIB, lost_bytes=MIB), 0.1),
        (unshielded(residue(file_bytes=4096), live_bytes=0), 0.1),
        (unshielded(residue(mapped_bytes=8 * MIB)), 0.1),
        (unshielded(residue(dirty_bytes=19 * MIB)), 0.1),
        (unshielded(predicted_write_usec=50_000), 0.1),
    ],
)
def test_what_is_reclaimed_where_nothing_is_shielded(case: Reading, ratio: float) -> None:
    decision = policy.decide(case, replace(CONFIG, reclaim=replace(SHARED.reclaim, shared_ratio=ratio)))
    assert isinstance(decision, Reclaim)
    assert not decision.keep_mapped
    assert decision.window_usec == decision.write_usec == policy.SLICE_USEC
    assert policy.for_sweep(decision, 2.0).window_usec == policy.SLICE_USEC
    refused = policy.decide(case, CONFIG)
    assert isinstance(refused, Skip)
    assert "reclaim.shared is off" in refused.reason


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        (unshielded(residue(dying=0)), Reclaim),
        (unshielded(residue(dying=0, mapped_bytes=9 * MIB)), Wait),  # force_empty cannot stop short of it
        (unshielded(residue(dying=0, anon_bytes=MIB), swap_on=True), Skip),
        (unshielded(residue(dying=0, shmem_bytes=4096), swap_on=True), Skip),
        (unshielded(residue(dying=0, anon_bytes=MIB)), Reclaim),
    ],
)
def test_a_cgroup_that_is_being_stopped_needs_no_shield(case: Reading, kind: type) -> None:
    assert isinstance(policy.decide_ending(case, CONFIG), kind)


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        (reading(residue(dying=0)), Reclaim),
        (reading(residue(dying=0, mapped_bytes=40 * MIB)), Wait),
        (reading(residue(dying=0, anon_bytes=MIB), swap_on=True), Skip),
        (reading(residue(dying=0), memory_some_percent=50.0), Wait),
    ],
)
def test_a_cgroup_that_is_being_stopped(case: Reading, kind: type) -> None:
    decision = policy.decide_ending(case, CONFIG)
    assert isinstance(decision, kind)
    if isinstance(decision, Reclaim):
        assert decision.keep_mapped
        assert decision.max_bytes == 40 * MIB
        assert decision.window_usec <= policy.STOP_WINDOW_USEC


@pytest.mark.parametrize(
    ("case", "max_bytes", "keep_mapped", "forbid_swap"),
    [
        (reading(residue(dying=0), usage_bytes=43 * MIB), 43 * MIB, False, False),
        (reading(residue(dying=0, mapped_bytes=4 * MIB), usage_bytes=43 * MIB), 43 * MIB, False, False),
        (reading(residue(dying=0, mapped_bytes=9 * MIB), usage_bytes=43 * MIB), 31 * MIB, True, False),
        (reading(residue(dying=0, file_bytes=0), usage_bytes=MIB), MIB, False, False),  # memory.stat lags
        (reading(residue(dying=0), memory_some_percent=50.0), 40 * MIB, False, False),  # it gives, not takes
        (
            reading(residue(dying=0, anon_bytes=MIB), swap_on=True, may_forbid_swap=True),
            40 * MIB,
            False,
            True,
        ),
        (reading(residue(dying=0, shmem_bytes=MIB), swap_on=True, refuses_swap=True), 40 * MIB, False, False),
        (reading(residue(dying=0, mapped_bytes=4 * MIB), shields=False), 40 * MIB, False, False),
    ],
)
def test_a_cgroup_whose_processes_are_gone(
    case: Reading, max_bytes: int, keep_mapped: bool, forbid_swap: bool
) -> None:
    decision = policy.decide_ending(case, CONFIG, vacated=True)
    assert isinstance(decision, Reclaim)
    assert (decision.max_bytes, decision.keep_mapped, decision.forbid_swap) == (
        max_bytes,
        keep_mapped,
        forbid_swap,
    )


@pytest.mark.parametrize(
    ("case", "kind", "words"),
    [
        (reading(residue(dying=0, mapped_bytes=40 * MIB)), Wait, "clean and unmapped"),
        (reading(residue(dying=0, mapped_bytes=9 * MIB), shields=False), Wait, "force_empty would take that"),
        (reading(residue(dying=0, anon_bytes=MIB), swap_on=True), Skip, "anonymous memory"),
    ],
)
def test_what_is_left_alone_when_its_processes_are_gone(case: Reading, kind: type, words: str) -> None:
    decision = policy.decide_ending(case, CONFIG, vacated=True)
    assert isinstance(decision, kind)
    assert words in decision.reason


def test_a_window_of_a_sweep_fits_its_share_of_a_second() -> None:
    plan = Reclaim(max_bytes=1, keep_mapped=False, window_usec=250_000, write_usec=4_000, reason="")
    assert policy.for_sweep(plan, 2.0).window_usec == 20_000
    assert policy.for_sweep(plan, 0.1).window_usec == 10_000
    assert policy.for_sweep(plan, 100.0).window_usec == 250_000


def test_a_first_big_sweep_ramps_up() -> None:
    shares = [policy.ramp_percent(2.0, second, 120) for second in range(0, 121, 10)]
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(0.2)
    assert shares[-1] == 2.0


def test_deepest_parents_come_first() -> None:
    paths = ["/user.slice", "/user.slice/user-1.slice/user@1.service", "/user.slice/user-1.slice"]
    ordered = policy.deepest_first([replace(residue(), path=path) for path in paths])
    assert [each.path for each in ordered] == [paths[1], paths[2], paths[0]]
