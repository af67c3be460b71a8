"""Whatever order the sources speak in, one teardown for each inode."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase

import pytest

from logindguard.config import Units
from logindguard.model import Phase, Source, Teardown
from logindguard.signals.registry import DESCRIPTION_AGE_USEC, Registry

SLICE = "/user.slice/user-1000.slice"
SCOPE = f"{SLICE}/session-3.scope"
MANAGER = f"{SLICE}/user@1000.service"


def covers(unit: str) -> bool:
    return any(fnmatchcase(unit, glob) for glob in Units().include)


class Told(list[Teardown]):
    """The teardowns told, and the registry that tells them."""

    def __init__(self, **limits: int) -> None:
        super().__init__()
        self.registry = Registry(covers, self.append, **limits)

    @property
    def brief(self) -> list[tuple[str, int, str]]:
        return [(teardown.unit, teardown.inode, teardown.phase.value) for teardown in self]


@pytest.fixture
def told() -> Told:
    return Told()


Step = Callable[[Registry], None]


def appeared(path: str = SCOPE, inode: int = 7) -> Step:
    return lambda registry: registry.appeared(path, inode, 10)


def described(unit: str = "session-3.scope", uid: int | None = 1000, service: str = "sshd") -> Step:
    return lambda registry: registry.described(
        unit=unit, session_id="3", uid=uid, service=service, now_usec=10
    )


def ending(unit: str = "session-3.scope") -> Step:
    return lambda registry: registry.ending(unit, Source.SYSTEMD1, 20)


def ended(unit_or_path: str = SCOPE, source: Source = Source.CGROUP_WATCH) -> Step:
    return lambda registry: registry.ended(unit_or_path, source, 30)


def missed(path: str = SCOPE) -> Step:
    return lambda registry: registry.missed(path, Source.CGROUP_WATCH, 30)


ENDED = ("session-3.scope", 7, "ended")
ENDING = ("session-3.scope", 7, "ending")
ENDED_AGAIN = ("session-3.scope", 8, "ended")


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        pytest.param([appeared()], [], id="alive"),
        pytest.param([appeared(), ended()], [ENDED], id="by path"),
        pytest.param([appeared(), ended("session-3.scope", Source.LOGIN1)], [ENDED], id="by unit"),
        pytest.param([appeared(), appeared(), ended()], [ENDED], id="seen twice"),
        pytest.param([appeared(), ended(), ended(), ended("session-3.scope")], [ENDED], id="told thrice"),
        pytest.param([ended(), appeared(), ended()], [ENDED], id="end of an earlier one first"),
        pytest.param([appeared(), ended(), appeared(), ended()], [ENDED], id="a late echo of the same inode"),
        pytest.param([appeared(), ending(), ended()], [ENDING, ENDED], id="stop job, end"),
        pytest.param([appeared(), ending(), ending(), ended()], [ENDING, ENDED], id="stop job twice"),
        pytest.param([appeared(), ended(), ending()], [ENDED], id="stop job after the end"),
        pytest.param([ending(), appeared(), ended()], [ENDED], id="stop job of an earlier one"),
        pytest.param(
            [appeared(), ended(), appeared(inode=8), ended()], [ENDED, ENDED_AGAIN], id="reused id"
        ),
        pytest.param(
            [appeared(), appeared(inode=8), ended()], [ENDED, ENDED_AGAIN], id="reused id, end unheard of"
        ),
        pytest.param(
            [appeared(), ending(), appeared(inode=8), ending()],
            [ENDING, ENDED, ("session-3.scope", 8, "ending")],
            id="each inode has its own stop job",
        ),
        pytest.param([missed()], [("session-3.scope", 0, "ended")], id="too short to be seen"),
        pytest.param([appeared(), missed()], [ENDED], id="a late birth event of one that was listed"),
        pytest.param([appeared("/system.slice/nginx.service"), ended("/system.slice/nginx.service")], [],
                     id="not covered"),
        pytest.param([missed("/system.slice/nginx.service")], [], id="not covered and not seen"),
        pytest.param([appeared(f"{SLICE}/_session-3.scope"), ended(f"{SLICE}/_session-3.scope")], [ENDED],
                     id="escaped name"),
        pytest.param([appeared(f"{SLICE}/session-\n.scope"), ended(f"{SLICE}/session-\n.scope")], [],
                     id="not a unit name"),
        pytest.param([appeared("/a\nb/session-3.scope"), ended("/a\nb/session-3.scope")], [],
                     id="a path that would break a journal line"),
        pytest.param([appeared("/\udcff/session-3.scope"), ended("/\udcff/session-3.scope")], [],
                     id="a path that is not text"),
        pytest.param([appeared(f"{MANAGER}/run-1.scope"), ended("run-1.scope"), ending("run-1.scope")], [],
                     id="the system manager does not speak for a user's manager"),
        pytest.param([appeared(f"{MANAGER}/run-1.scope"), ended(f"{MANAGER}/run-1.scope")],
                     [("run-1.scope", 7, "ended")], id="a user's unit by path"),
    ],
)  # fmt: skip
def test_what_is_told(told: Told, steps: list[Step], expected: list[tuple[str, int, str]]) -> None:
    for step in steps:
        step(told.registry)
    assert told.brief == expected


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        pytest.param([appeared(), described(), ended()], ("3", 1000, "sshd"), id="after"),
        pytest.param([described(), appeared(), ended()], ("3", 1000, "sshd"), id="before"),
        pytest.param([described(), described(service="cron"), appeared(), ended()], ("3", 1000, "cron"),
                     id="the last word counts"),
        pytest.param([described(), missed()], ("3", 1000, "sshd"), id="too short to be seen"),
        pytest.param([appeared(), ended()], ("3", 1000, None), id="from unit name and path"),
        pytest.param([appeared("/user.slice/user-0.slice/session-c1.scope"),
                      ended("session-c1.scope")], ("c1", 0, None), id="root's"),
        pytest.param([appeared("/session-3.scope"), described(), ended("session-3.scope")],
                     ("3", 1000, "sshd"), id="no user slice above"),
        pytest.param([appeared("/session-3.scope"), ended("session-3.scope")], ("3", None, None),
                     id="nothing known"),
        pytest.param([described(uid=1001), appeared(), ended()], ("3", 1000, None),
                     id="left over from another user's session"),
        pytest.param([described(uid=None), appeared(), ended()], ("3", 1000, "sshd"), id="no uid said"),
        pytest.param([appeared(SLICE), ended(SLICE)], (None, 1000, None), id="the slice itself"),
        pytest.param([appeared("/system.slice/cron-daily.service"), ended("cron-daily.service")],
                     (None, None, None), id="a service"),
    ],
)  # fmt: skip
def test_who_is_told(
    told: Told, steps: list[Step], expected: tuple[str | None, int | None, str | None]
) -> None:
    for step in steps:
        step(told.registry)
    [teardown] = told
    assert (teardown.session_id, teardown.uid, teardown.service) == expected


def test_a_description_of_the_next_life_does_not_change_this_one(told: Told) -> None:
    """SessionNew of a reused id may overtake the rmdir of the old scope."""
    for step in (appeared(), described(service="sshd"), described(service="cron"), appeared(inode=8)):
        step(told.registry)
    told.registry.ended(SCOPE, Source.CGROUP_WATCH, 30)
    assert [(teardown.inode, teardown.service) for teardown in told] == [(7, "sshd"), (8, "cron")]


def test_a_description_said_twice_is_not_kept_for_the_next_life(told: Told) -> None:
    for step in (appeared(), described(), described(), ended(), appeared(inode=8), ended()):
        step(told.registry)
    assert [(teardown.inode, teardown.service) for teardown in told] == [(7, "sshd"), (8, None)]


def test_an_old_description_is_not_believed(told: Told) -> None:
    described()(told.registry)
    told.registry.appeared(SCOPE, 7, 10 + DESCRIPTION_AGE_USEC + 1)
    told.registry.ended(SCOPE, Source.CGROUP_WATCH, 0)
    assert told[0].service is None


def test_a_subtree_that_goes_is_told_once_each_deepest_first(told: Told) -> None:
    paths = [SLICE, SCOPE, MANAGER, f"{MANAGER}/app.slice/run-1.scope", "/user.slice/user-10000.slice"]
    for inode, path in enumerate(paths, start=1):
        told.registry.appeared(path, inode, 10)
    told.registry.ended(SLICE, Source.LOGIN1, 30)
    told.registry.ended(SCOPE, Source.CGROUP_WATCH, 31)
    assert [teardown.inode for teardown in told] == [4, 2, 3, 1]
    assert {teardown.source for teardown in told} == {Source.LOGIN1}
    assert told.registry.entries() == [("/user.slice/user-10000.slice", 5)]


def test_a_parent_that_is_not_covered_takes_its_children_along(told: Told) -> None:
    told.registry.appeared("/system.slice/system-cron.slice/cron-daily.service", 9, 10)
    told.registry.ended("/system.slice/system-cron.slice", Source.CGROUP_WATCH, 30)
    assert told.brief == [("cron-daily.service", 9, "ended")]


def test_what_a_teardown_says(told: Told) -> None:
    told.registry.appeared(SCOPE, 7, 10)
    told.registry.ended("session-3.scope", Source.LOGIN1, 30)
    assert told == [
        Teardown(
            unit="session-3.scope",
            path=SCOPE,
            inode=7,
            phase=Phase.ENDED,
            source=Source.LOGIN1,
            heard_usec=30,
            session_id="3",
            uid=1000,
        )
    ]
    assert told[0].parent == SLICE


def test_lookups(told: Told) -> None:
    registry = told.registry
    registry.appeared(SCOPE, 7, 10)
    registry.appeared(f"{MANAGER}/run-1.scope", 8, 10)
    assert registry.live("session-3.scope") == [(SCOPE, 7)]
    assert registry.live("run-1.scope") == []
    assert registry.inode(f"{MANAGER}/run-1.scope") == 8
    assert registry.inode("/nowhere") is None
    assert registry.awaits_ending("session-3.scope")
    registry.ending("session-3.scope", Source.SYSTEMD1, 20)
    assert not registry.awaits_ending("session-3.scope")
    assert not registry.awaits_ending("session-4.scope")
    assert len(registry) == 2


def test_users_cannot_use_up_the_room(caplog: pytest.LogCaptureFixture) -> None:
    told = Told(max_live=10)
    for number in range(20):
        told.registry.appeared(f"{MANAGER}/run-{number}.scope", 100 + number, 10)
    assert len(told.registry) == 5
    for number in range(20):
        told.registry.appeared(f"{SLICE}/session-{number}.scope", 200 + number, 10)
    assert len(told.registry) == 10
    assert len(caplog.records) == 1


def test_memory_stays_bounded_over_many_lives() -> None:
    told = Told(max_dead=16, max_descriptions=16)
    registry = told.registry
    for number in range(10_000):
        described(f"session-{number}.scope")(registry)
        described(f"session-x{number}.scope")(registry)  # never appears
        registry.appeared(f"{SLICE}/session-{number}.scope", number, 10)
        registry.ended(f"session-{number}.scope", Source.LOGIN1, 10)
    assert len(told) == 10_000
    sizes = {name: len(value) for name, value in vars(registry).items() if hasattr(value, "__len__")}
    assert sizes == {"_live": 0, "_below": 0, "_paths": 0, "_dead": 16, "_descriptions": 15}
