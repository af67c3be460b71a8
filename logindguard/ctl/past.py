"""Records as the model has them: out of the journal where this user may read it, else from the service."""

from __future__ import annotations

import asyncio
from contextlib import closing, suppress
from typing import Any

from ..model import Mode, Outcome, Phase, ReclaimRecord, Source, Teardown, Way
from ..record.history import HistoryUnavailable
from .client import Record, ServiceAbsent
from .context import Context

MAX_SEC = 60.0  # for a journal of years


async def records(context: Context, since_usec: int = 0) -> list[ReclaimRecord]:
    """Oldest first. Failure where neither can be asked. What was not read whole is said so."""
    if context.world.history is None:
        return await _of_service(context, since_usec)
    try:
        found = await asyncio.to_thread(context.world.history.find, since_usec=since_usec, max_sec=MAX_SEC)
    except HistoryUnavailable as error:
        context.out.note(f"{error} The service is asked.")
        return await _of_service(context, since_usec)
    if not found.complete:
        context.out.note("The journal was not read to its beginning, which takes long: use --since=.")
    if not found.records:  # a host without journald: the service remembers the last ones
        with suppress(ServiceAbsent):
            return await _of_service(context, since_usec)
    return found.records[::-1]


async def _of_service(context: Context, since_usec: int) -> list[ReclaimRecord]:
    with closing(await context.service()) as service:
        rows = await service.reclaims(since_usec)
    return [to_record(row) for row in reversed(rows)]


def to_record(row: Record) -> ReclaimRecord:
    """A row of ListReclaims as the record that it was made from; keys of a later version are left out."""
    values: dict[str, Any] = {key: row[key] for key in row if key in ReclaimRecord.__dataclass_fields__}
    values |= {"way": Way(row["way"]), "outcome": Outcome(row["outcome"]), "mode": Mode(row["mode"])}
    values["teardowns"] = tuple(_to_teardown(teardown) for teardown in row.get("teardowns", ()))
    return ReclaimRecord(**values)


def _to_teardown(row: Record) -> Teardown:
    values: dict[str, Any] = {key: row[key] for key in row if key in Teardown.__dataclass_fields__}
    return Teardown(**values | {"phase": Phase(row["phase"]), "source": Source(row["source"])})
