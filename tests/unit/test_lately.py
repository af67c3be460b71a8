from __future__ import annotations

import pytest

from logindguard.kernel.lately import FORGIVE_SEC, Lately


def test_what_went_is_forgiven_within_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr("logindguard.kernel.lately.time.monotonic", lambda: now)
    went = Lately()
    went.book(7, 1_000)
    went.book(8, -5)
    assert (went.at(7), went.at(8), went.at(9)) == (1_000, 0, 0)
    now += FORGIVE_SEC / 2
    assert went.at(7) == 500
    went.book(7, 100)
    assert went.at(7) == 600
    now += FORGIVE_SEC
    went.book(8, 1)
    assert went._bytes.keys() == {8}  # what is forgiven is forgotten
    went.forget(8)
    assert went.at(8) == 0
