"""Where a residue stands between tries of the sweep: each rung costs more than the one before.

    reclaim -> wait for writeback, reclaim -> nudge, reclaim -> verdict

Retrying at once is worth little, retrying once the kernel had time to write is worth a lot. So a
residue that gave nothing waits for the kernel's own clocks, and its tries span all of them: expiry of
dirty data, the journal's commit, expiry of the metadata that the commit left dirty. What is left then
is not waiting for the disk. It may be held by writeback structures of inodes that are clean by now,
which let go when some memcg goes offline: one is made and removed for that (kernel/nudge.py). After
that nothing else is tried: the verdict names what holds the rest, and the sweep looks seldom.

Whatever gives something begins anew. Pure: time is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from .config import SweepSettings
from .kernel.writeback import Clocks
from .model import Decision, Outcome, Reclaim, Skip, Wait

MAX_TRIES = 8  # while the kernel's clocks run, however slow they are
SOON_USEC = 1_000_000  # until it is quiet beside it, as the sweep waits for anyhow
NUDGE_USEC = 5_000_000  # until writeback structures are gone, by RCU and some workers of the kernel
_DOUBLED = 20  # no wait is doubled more often


class Rung(StrEnum):
    """What the next try is for."""

    RECLAIM = "reclaim"  # it gave something lately
    WRITEBACK = "writeback"  # the kernel may write first
    NUDGE = "nudge"  # writeback structures were told to go
    VERDICT = "verdict"  # whether that still holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """Of one residue; times are CLOCK_MONOTONIC."""

    rung: Rung = Rung.RECLAIM
    tries: int = 0  # since the last progress
    since_usec: int = 0  # the last progress
    next_usec: int = 0  # the next try


def after_try(
    stand: Stand,
    outcome: Outcome,
    decision: Decision,
    clocks: Clocks,
    settings: SweepSettings,
    now_usec: int,
    *,
    progress: bool = False,
) -> Stand:
    """Where a residue stands after a try that left something; `progress`: less of it is dying than before."""
    if isinstance(decision, Wait) and decision.soon:
        return replace(stand, next_usec=now_usec + SOON_USEC)
    if outcome is Outcome.PARTIAL or progress:
        # It still gave when the time of its job was over: only others' turns come between.
        out_of_time = outcome is Outcome.PARTIAL and isinstance(decision, Reclaim)
        return Stand(
            since_usec=now_usec, next_usec=now_usec + (0 if out_of_time else settings.retry_first_usec)
        )
    tried = replace(stand, tries=stand.tries + 1, since_usec=stand.since_usec or now_usec)
    if outcome is Outcome.MAPPED_KEPT or isinstance(decision, Skip):
        return replace(tried, rung=Rung.VERDICT, next_usec=now_usec + settings.retry_max_usec)
    if outcome is Outcome.FAILED or (isinstance(decision, Wait) and decision.outside):
        # That says nothing of the residue: it stays where it is.
        wait_usec = 2 * settings.retry_first_usec << min(stand.tries, _DOUBLED)
        return replace(tried, next_usec=now_usec + min(wait_usec, settings.retry_max_usec))
    if stand.rung in (Rung.NUDGE, Rung.VERDICT):
        return replace(tried, rung=Rung.VERDICT, next_usec=now_usec + settings.retry_max_usec)
    settled_usec = tried.since_usec + clocks.settled_usec
    if now_usec >= settled_usec:
        return replace(tried, rung=Rung.NUDGE, next_usec=now_usec + NUDGE_USEC)
    step_usec = max(clocks.period_usec, clocks.settled_usec // MAX_TRIES)
    return replace(tried, rung=Rung.WRITEBACK, next_usec=min(now_usec + step_usec, settled_usec))


def judged(stand: Stand, outcome: Outcome, decision: Decision) -> bool:
    """Whether what holds the rest is to be read and said; a refusal of ours or of the kernel says it all."""
    outside = isinstance(decision, Wait) and decision.outside
    return (
        stand.rung is Rung.VERDICT
        and outcome is not Outcome.FAILED
        and not (outside or isinstance(decision, Skip))
    )
