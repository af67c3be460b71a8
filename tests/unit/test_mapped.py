from __future__ import annotations

import pytest

from logindguard.kernel.mapped import FORGIVE_SEC, MappedLoss


def test_what_went_is_forgiven_within_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr("logindguard.kernel.mapped.time.monotonic", lambda: now)
    loss = MappedLoss()
    loss.book(7, 1_000)
    loss.book(8, -5)
    assert (loss.lately(7), loss.lately(8), loss.lately(9)) == (1_000, 0, 0)
    now += FORGIVE_SEC / 2
    assert loss.lately(7) == 500
    loss.book(7, 100)
    assert loss.lately(7) == 600
    now += FORGIVE_SEC
    loss.book(8, 1)
    assert loss._lost.keys() == {8}  # what is forgiven is forgotten
