"""No user's cgroups keep those of others waiting for long."""

from __future__ import annotations

import pytest

from logindguard.turns import Turns, owner

ALICE = "/user.slice/user-1000.slice"
BOB = "/user.slice/user-1001.slice"
OF_ALICE = [f"{ALICE}/user@1000.service/app.slice/p{number}" for number in range(5)]


def order(waiting: list[str]) -> list[str]:
    turns, left, served = Turns(), list(waiting), []
    while left:
        served.append(turns.next(left))
        left.remove(served[-1])
    return served


@pytest.mark.parametrize(
    ("path", "whose"),
    [
        (f"{ALICE}/user@1000.service", ALICE),
        (ALICE, ALICE),
        ("/user.slice", ""),
        ("/system.slice/cron.service", ""),
        ("/user.slice/user-1000.slicex", ""),
        ("/a/user.slice/user-1000.slice", ""),  # a user can make such a name, below their own slice only
    ],
)
def test_whose_a_cgroup_is(path: str, whose: str) -> None:
    assert owner(path) == whose


def test_users_take_turns() -> None:
    assert order([*OF_ALICE, BOB, "/system.slice"]) == [
        OF_ALICE[0],
        BOB,
        "/system.slice",
        *OF_ALICE[1:],
    ]


def test_the_deepest_of_an_owner_comes_first() -> None:
    assert order([ALICE, *OF_ALICE[:2]]) == [*OF_ALICE[:2], ALICE]
    assert order(["/", "/system.slice"]) == ["/system.slice", "/"]


def test_one_that_keeps_coming_waits_for_those_that_came_meanwhile() -> None:
    turns = Turns()
    assert turns.next([OF_ALICE[0]]) == OF_ALICE[0]
    assert turns.next([OF_ALICE[1], BOB]) == BOB
    assert turns.next([OF_ALICE[1], f"{BOB}/b"]) == OF_ALICE[1]
    assert turns.next([OF_ALICE[2], f"{BOB}/b"]) == f"{BOB}/b"


def test_only_those_that_wait_are_remembered() -> None:
    turns = Turns()
    for uid in range(1000):
        turns.next([f"/user.slice/user-{uid}.slice"])
    assert len(turns._last) <= 1
