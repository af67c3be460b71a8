from __future__ import annotations

from logindguard.config import TeardownSettings
from logindguard.model import Phase, Source, Teardown
from logindguard.settle import Settler

SETTINGS = TeardownSettings(settle_usec=300, settle_max_usec=1000)


def teardown(unit: str, parent: str = "/user.slice/user-1000.slice") -> Teardown:
    return Teardown(
        unit=unit,
        path=f"{parent}/{unit}",
        inode=hash(unit) & 0xFFFF,
        phase=Phase.ENDED,
        source=Source.LOGIN1,
        heard_usec=0,
    )


def test_nothing_is_due_when_nothing_was_heard() -> None:
    settler = Settler()
    assert settler.next_usec(SETTINGS) is None
    assert settler.due(SETTINGS, 10**9) == []


def test_a_quiet_parent_settles() -> None:
    settler = Settler()
    settler.add(teardown("session-1.scope"), 100)
    settler.add(teardown("session-2.scope"), 200)
    assert settler.due(SETTINGS, 499) == []
    assert settler.next_usec(SETTINGS) == 500
    [(path, taken)] = settler.due(SETTINGS, 500)
    assert path == "/user.slice/user-1000.slice"
    assert [each.unit for each in taken] == ["session-1.scope", "session-2.scope"]
    assert len(settler) == 0


def test_an_unquiet_parent_settles_in_the_end() -> None:
    settler = Settler()
    for now in range(0, 1000, 100):
        settler.add(teardown(f"session-{now}.scope"), now)
        assert settler.due(SETTINGS, now) == []
    assert settler.next_usec(SETTINGS) == 1000
    assert len(settler.due(SETTINGS, 1000)) == 1


def test_parents_settle_each_on_its_own() -> None:
    settler = Settler()
    settler.add(teardown("session-1.scope"), 0)
    settler.add(teardown("cron-x.service", "/system.slice"), 200)
    assert [path for path, _ in settler.due(SETTINGS, 300)] == ["/user.slice/user-1000.slice"]
    assert [path for path, _ in settler.due(SETTINGS, 500)] == ["/system.slice"]
