"""What becomes of a job that has to wait for others: no failure, since they will be done."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from logindguard.config import Config
from logindguard.kernel.ledger import LedgerBusy, LedgerError
from logindguard.model import Outcome, Reclaim, Residue, Wait, Way, Window
from logindguard.reclaimer import Job, Reclaimer
from logindguard.record.journal import INFO, WARNING, priority_of
from tests.unit.fake_backend import MIB, FakeBackend

ALICE = "/user.slice/user-1000.slice"


class Refusing(FakeBackend):
    error: LedgerError

    def reclaim(self, residue: Residue, plan: Reclaim, should_stop: Callable[[], bool]) -> Window:
        raise self.error


@pytest.fixture
async def reclaimer() -> AsyncIterator[Reclaimer]:
    backend = Refusing()
    backend.hold(ALICE, 3, 5 * MIB)
    with ThreadPoolExecutor(1) as prompt, ThreadPoolExecutor(1) as idle:
        yield Reclaimer(backend, Config(), prompt=prompt, idle=idle)


@pytest.mark.parametrize(
    ("error", "outcome", "priority"),
    [
        (LedgerBusy("another window is open"), Outcome.SKIPPED, INFO),
        (LedgerError("/run/logindguard/ledger: No space left on device"), Outcome.FAILED, WARNING),
    ],
    ids=["busy", "broken"],
)
async def test_a_ledger_that_cannot_be_had(
    reclaimer: Reclaimer, error: LedgerError, outcome: Outcome, priority: int
) -> None:
    assert isinstance(reclaimer.backend, Refusing)
    reclaimer.backend.error = error
    record, decision = await reclaimer.run(Job(way=Way.AFTER, path=ALICE))
    assert (record.outcome, record.reason) == (outcome, str(error))
    assert (record.dying_before, record.dying_after) == (3, 3)
    assert priority_of(record) == priority
    assert isinstance(decision, Wait if outcome is Outcome.SKIPPED else Reclaim)
    assert not isinstance(decision, Wait) or decision.outside


class PuttingOff(FakeBackend):
    def reclaim(self, residue: Residue, plan: Reclaim, should_stop: Callable[[], bool]) -> Window:
        window = super().reclaim(residue, plan, should_stop)
        return replace(window, outcome=Outcome.PARTIAL, reason="births", after=residue, put_off=True)


async def test_a_tail_that_is_put_off_is_for_a_later_job() -> None:
    backend = PuttingOff()
    backend.hold(ALICE, 3, 5 * MIB)
    with ThreadPoolExecutor(1) as prompt, ThreadPoolExecutor(1) as idle:
        reclaimer = Reclaimer(backend, Config(), prompt=prompt, idle=idle)
        record, decision = await reclaimer.run(Job(way=Way.AFTER, path=ALICE))
    assert (record.outcome, record.reason) == (Outcome.PARTIAL, "births")
    assert decision == Wait(reason="births", outside=True, soon=True)
    assert backend.reclaimed() == [ALICE]  # once
