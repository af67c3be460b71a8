"""Who leaves dying memcgs behind: teardowns and sums exact, the rest said to be estimates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from random import Random

import pytest

from logindguard.blame import UNTOLD, Account, Blame
from logindguard.model import UNNAMED, Mode, Outcome, Phase, ReclaimRecord, Source, Teardown, Way
from logindguard.owners import By, owner_by, slice_of, stranger_by, trigger_of, unit_glob

ALICE, BOB = "/user.slice/user-1000.slice", "/user.slice/user-1001.slice"
SEC = 1_000_000


def ended(path: str, inode: int, **more: object) -> Teardown:
    known = Teardown(
        unit=path.rpartition("/")[2],
        path=path,
        inode=inode,
        phase=Phase.ENDED,
        source=Source.LOGIN1,
        heard_usec=0,
    )
    return replace(known, **more)  # type: ignore[arg-type]


def session(number: int, user: str = ALICE, service: str = "sshd") -> Teardown:
    return ended(f"{user}/session-{number}.scope", number, session_id=str(number), service=service)


def told(
    way: Way, target: str, dying: tuple[int, int], *teardowns: Teardown, at_sec: int = 1, **more: object
) -> ReclaimRecord:
    known = ReclaimRecord(
        id=f"{at_sec:032x}",
        realtime_usec=at_sec * SEC,
        way=way,
        target=target,
        target_inode=7,
        outcome=Outcome.PARTIAL if dying[1] else Outcome.RELEASED,
        reason="waits for writeback",
        mode=Mode.PRECISE,
        teardowns=teardowns,
        dying_before=dying[0],
        dying_after=dying[1],
        writes=1,
    )
    return replace(known, **more)  # type: ignore[arg-type]


def blamed(
    *records: ReclaimRecord, dying: Mapping[str, int] | int | None = None, by: By = By.USER
) -> dict[str, Account]:
    blame = Blame(owner_by(by), stranger_by(by))
    for record in records:
        blame.book(record)
    blame.close(dying)
    accounts = dict(blame.accounts)
    assert blame.teardowns == sum(account.teardowns for account in accounts.values())
    if isinstance(dying, Mapping):
        assert sum(account.dying for account in accounts.values()) == pytest.approx(sum(dying.values()))
    return accounts


def ways(account: Account) -> tuple[float, float, float, float]:
    return account.at_once, account.reclaimed, account.later, account.dying


class TestBlame:
    def test_reclaimed_after_the_removal(self) -> None:
        [alice] = blamed(
            told(Way.AFTER, ALICE, (2, 0), session(1), session(2), freed_bytes=100), dying={}
        ).values()
        assert (alice.teardowns, ways(alice), alice.freed_bytes) == (2, (0, 2, 0, 0), 100)
        assert alice.exact

    def test_what_left_nothing_was_gone_at_once(self) -> None:
        nothing = told(Way.AFTER, ALICE, (0, 0), session(1), outcome=Outcome.SKIPPED, writes=0)
        assert ways(blamed(nothing)["1000"]) == (1, 0, 0, 0)

    def test_reclaimed_before_its_removal_and_never_told_of_again(self) -> None:
        before = told(Way.BEFORE, f"{ALICE}/session-1.scope", (0, 0), session(1), freed_bytes=5)
        alice = blamed(before, dying={})["1000"]
        assert (alice.teardowns, ways(alice), alice.freed_bytes) == (1, (1, 0, 0, 0), 5)

    def test_one_teardown_told_of_before_and_after_counts_once(self) -> None:
        before = told(Way.BEFORE, f"{ALICE}/session-1.scope", (0, 0), session(1))
        after = told(Way.AFTER, ALICE, (1, 1), session(1), at_sec=3)
        alice = blamed(before, before, after)["1000"]
        assert (alice.teardowns, ways(alice), alice.why) == (1, (0, 0, 0, 1), "waits for writeback")

    def test_the_same_inode_in_another_boot_is_another_teardown(self) -> None:
        before = told(Way.BEFORE, f"{ALICE}/session-1.scope", (0, 0), session(1))
        after = told(Way.AFTER, ALICE, (1, 0), session(1), at_sec=9_000)
        alice = blamed(before, after)["1000"]
        assert (alice.teardowns, ways(alice)) == (2, (1, 1, 0, 0))

    def test_left_and_gone_later_by_the_sweep(self) -> None:
        left = told(Way.AFTER, ALICE, (3, 3), session(1), session(2), session(3))
        swept = told(Way.SWEEP, ALICE, (3, 1), freed_bytes=8, at_sec=60)
        alice = blamed(left, swept, dying={ALICE: 1})["1000"]
        assert (ways(alice), alice.freed_bytes, alice.exact) == ((0, 0, 2, 1), 8, True)

    def test_what_the_kernel_let_go_by_itself_counts_as_later(self) -> None:
        alice = blamed(told(Way.AFTER, ALICE, (1, 1), session(1)), dying={})["1000"]
        assert ways(alice) == (0, 0, 1, 0)

    def test_where_two_owners_hang_under_one_parent_it_is_an_estimate(self) -> None:
        slices = [ended(ALICE, 1), ended(BOB, 2), ended(f"{BOB}/user@1001.service", 3)]
        left = told(Way.AFTER, "/user.slice", (3, 3), *slices)
        accounts = blamed(left, dying={"/user.slice": 1})
        assert accounts["1000"].dying == pytest.approx(1 / 3)
        assert accounts["1001"].dying == pytest.approx(2 / 3)
        assert not accounts["1000"].exact
        assert not accounts["1001"].exact

    def test_all_gone_is_no_estimate(self) -> None:
        left = told(Way.AFTER, "/user.slice", (2, 2), ended(ALICE, 1), ended(BOB, 2))
        assert all(account.exact for account in blamed(left, dying={}).values())

    def test_what_hung_under_a_removed_slice_hangs_higher_up(self) -> None:
        left = told(Way.AFTER, ALICE, (2, 2), session(1), session(2))
        logout = told(Way.AFTER, "/user.slice", (3, 3), ended(ALICE, 9), at_sec=5)
        alice = blamed(left, logout, dying={"/user.slice": 3})["1000"]
        assert (alice.teardowns, ways(alice), alice.exact) == (3, (0, 0, 0, 3), True)

    def test_what_no_teardown_told_of_is_a_strangers(self) -> None:
        swept = told(Way.SWEEP, "/user.slice", (40, 30))
        accounts = blamed(swept, dying={"/user.slice": 30, ALICE: 4})
        assert {owner: account.dying for owner, account in accounts.items()} == {"": 30, "1000": 4}
        assert accounts[""].teardowns == accounts[""].later == 0

    def test_what_comes_with_the_end_of_a_users_manager_is_that_users(self) -> None:
        first = told(Way.AFTER, "/user.slice", (50, 50), ended(BOB, 1))  # 49 were there before
        manager = ended(f"{ALICE}/user@1000.service", 2)
        logout = told(Way.AFTER, "/user.slice", (56, 56), manager, ended(ALICE, 3), at_sec=9)
        accounts = blamed(first, logout, dying={"/user.slice": 56})
        dying = {owner: account.dying for owner, account in accounts.items()}
        assert dying == {"": 49, "1001": 1, "1000": 2 + 4}
        assert (accounts["1000"].teardowns, accounts["1000"].exact) == (2, False)
        assert (accounts["1001"].teardowns, accounts["1001"].exact) == (1, True)

    def test_teardowns_that_are_only_counted(self) -> None:
        many = told(Way.AFTER, ALICE, (5, 0), session(1), context={UNNAMED: "4"})
        accounts = blamed(many)
        assert (accounts["1000"].teardowns, accounts[UNTOLD].teardowns) == (1, 4)
        assert accounts[UNTOLD].reclaimed == 4

    def test_counts_of_the_whole_hierarchy(self) -> None:
        shared = told(Way.AFTER, ALICE, (10, 8), session(1), session(2), mode=Mode.SHARED)
        accounts = blamed(shared, dying=8)
        assert sum(account.dying for account in accounts.values()) == pytest.approx(8)
        assert not accounts["1000"].exact
        before = told(Way.BEFORE, f"{ALICE}/session-3.scope", (8, 8), session(3), mode=Mode.SHARED)
        assert ways(blamed(before, dying=8)["1000"]) == (0, 0, 0, 1)

    def test_where_nothing_was_counted_it_is_still_there(self) -> None:
        observed = told(Way.AFTER, ALICE, (0, 0), session(1), target_inode=0, outcome=Outcome.SKIPPED)
        assert ways(blamed(observed)["1000"]) == (0, 0, 0, 1)
        assert ways(blamed(observed, dying=5)["1000"]) == (0, 0, 0, 1)
        gone = told(Way.AFTER, ALICE, (1, 0), outcome=Outcome.GONE, freed_bytes=3)
        assert ways(blamed(told(Way.AFTER, ALICE, (1, 1), session(1)), gone)["1000"]) == (0, 0, 0, 1)


class TestWhateverIsTold:
    """Records in any order with any numbers: what is said of them adds up."""

    @pytest.mark.parametrize("seed", range(40))
    def test_it_adds_up(self, seed: int) -> None:
        random = Random(seed)
        live = ["/user.slice", ALICE, BOB, "/system.slice"]
        records = [self._record(random, number, live) for number in range(random.randrange(200))]
        dying = {path: random.randrange(20) for path in live if random.random() < 0.7}
        accounts = blamed(*records, dying=dying)
        seen = {teardown.inode for record in records for teardown in record.teardowns}
        assert sum(account.teardowns for account in accounts.values()) == len(seen)
        for account in accounts.values():
            ended_ways = (account.at_once, account.reclaimed, account.later)
            assert min(*ended_ways, account.dying) >= 0
            assert sum(ended_ways) <= account.teardowns + 1e-6
        freed_bytes = sum(record.freed_bytes for record in records if record.teardowns)
        assert sum(account.freed_bytes for account in accounts.values()) >= freed_bytes - 1

    def _record(self, random: Random, number: int, live: list[str]) -> ReclaimRecord:
        way = random.choice(list(Way))
        target = random.choice(live)
        units = [f"session-{number}.scope", f"user@{number}.service", f"x-{number}.slice"]
        numbers = range(10 * number, 10 * number + random.randrange(4))
        teardowns = [ended(f"{target}/{random.choice(units)}", inode) for inode in numbers]
        return told(
            way,
            target,
            (random.randrange(30), random.randrange(30)),
            *(teardowns if way is not Way.SWEEP else []),
            at_sec=number + 1,
            freed_bytes=random.choice([0, 4096, 1 << 20]),
            writes=random.randrange(2),
            target_inode=random.choice([0, 7, 7, 7]),
            outcome=random.choice(list(Outcome)),
            mode=random.choice([Mode.PRECISE, Mode.PRECISE, Mode.OBSERVE]),
        )


class TestOwners:
    @pytest.mark.parametrize(
        ("unit", "glob"),
        [
            ("session-67.scope", "session-*.scope"),
            ("user@1000.service", "user@*.service"),
            ("user-1000.slice", "user-*.slice"),
            ("run-u12.service", "run-*.service"),
            ("getty@tty1.service", "getty@*.service"),
            ("docker-0123abcd.scope", "docker-*.scope"),
            ("cron-backup.service", "cron-backup.service"),
        ],
    )
    def test_unit(self, unit: str, glob: str) -> None:
        assert unit_glob(unit) == glob

    @pytest.mark.parametrize(
        ("teardown", "trigger"),
        [
            (session(1), "ssh login"),
            (session(1, service="su-l"), "su"),
            (session(1, service="cron"), "cron job"),
            (session(1, service="gdm-password"), "other login"),
            (ended(f"{ALICE}/session-3.scope", 3), "login"),
            (ended("/system.slice/cron-backup.service", 3), "cron job"),
            (ended(f"{ALICE}/user@1000.service", 3), "user manager"),
            (ended(f"{ALICE}/user@1000.service/app.slice/foo.service", 3), "user service"),
            (ended("/system.slice/docker-0123.scope", 3), "container"),
            (ended("/machine.slice/libpod-0123.scope", 3), "container"),
            (ended("/system.slice/logrotate.service", 3), "timer"),
            (ended("/system.slice/report@7.service", 3), "timer"),
            (ended("/system.slice/backup.service", 3), "service"),
            (ended("/system.slice/run-u3.service", 3), "transient unit"),
        ],
    )
    def test_trigger(self, teardown: Teardown, trigger: str) -> None:
        assert trigger_of(teardown, {"logrotate.service", "report@*.service"}) == trigger

    def test_slice(self) -> None:
        assert slice_of("/user.slice/user-1.slice/user@1.service/init.scope") == "/user.slice/user-1.slice"
        assert slice_of("/system.slice") == "/system.slice"
        assert slice_of("/init.scope") == slice_of("/") == "/"

    @pytest.mark.parametrize(
        ("path", "owner"),
        [
            ("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-1.scope", "1000"),
            ("/machine.slice/systemd-nspawn@x.service/payload/user.slice/user-1000.slice", "system"),
            ("/system.slice/docker-1.scope/user.slice/user-1000.slice/session-1.scope", "system"),
            ("/lxc.payload.x/user.slice/user-1000.slice/session-1.scope", "system"),
            ("/user.slice/user-99999999999.slice", ""),
            ("/user.slice/user-\u0661.slice", ""),
        ],
    )
    def test_a_containers_users_are_not_ours(self, path: str, owner: str) -> None:
        assert owner_by(By.USER)(ended(path, 1)) == stranger_by(By.USER)(path) == owner

    def test_user_by_logind_or_by_path(self) -> None:
        user = owner_by(By.USER)
        assert user(ended("/system.slice/x.service", 1, uid=33)) == "33"
        assert user(session(1)) == "1000"
        assert user(ended("/system.slice/x.service", 1)) == "system"
        assert user(ended("/user.slice/x.service", 1)) == ""
