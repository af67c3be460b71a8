"""What ending cgroups gave is no loss of live ones; nothing else is excused by it."""

from __future__ import annotations

import time

import pytest

from logindguard.kernel import given
from logindguard.kernel.given import LAG_PAGES, LAG_SEC, Given

SCOPE = "/user.slice/user-1000.slice/session-2.scope"
PAGES = 1_000


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        (SCOPE, PAGES),
        ("/user.slice/user-1000.slice", PAGES),
        ("/user.slice", PAGES),
        ("/", PAGES),
        ("/user.slice/user-100", 0),
        ("/user.slice/user-1000.slice/session-2", 0),
        (f"{SCOPE}/below", 0),
        ("/system.slice", 0),
    ],
)
def test_it_shows_in_the_cgroup_and_above(path: str, seen: int) -> None:
    gifts, began = Given(), time.monotonic()
    with gifts.giving(SCOPE, 5 * PAGES) as gift:
        gift.pages = PAGES
    assert gifts.pages(path, began) == seen


def test_while_it_goes_on_it_may_be_all_that_is_held() -> None:
    gifts = Given()
    with gifts.giving(SCOPE, 5 * PAGES) as gift:
        assert gifts.pages(SCOPE, time.monotonic()) == 5 * PAGES
        gift.pages = PAGES
    assert gifts.pages(SCOPE, gift.ended_sec or 0) == PAGES


def test_a_later_window_sees_what_lags_and_no_more() -> None:
    gifts = Given()
    with gifts.giving(SCOPE, PAGES) as gift:
        pass
    assert gift.ended_sec is not None
    assert gifts.pages(SCOPE, gift.ended_sec + LAG_SEC / 2) == LAG_PAGES
    assert gifts.pages(SCOPE, gift.ended_sec + LAG_SEC + 1) == 0


def test_an_error_ends_it_too_and_old_ones_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    gifts = Given()
    with pytest.raises(OSError, match="5"), gifts.giving(SCOPE, PAGES):
        raise OSError(5)
    assert gifts.pages(SCOPE, 0) == PAGES
    monkeypatch.setattr(given, "KEEP_SEC", -1.0)
    with gifts.giving("/other", 7):
        assert gifts.pages("/", 0) == 7
