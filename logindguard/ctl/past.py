"""Records as the model has them: out of the journal where this user may read it, else from the service."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import fields
from typing import Any, TypeVar

from ..model import Mode, Outcome, Phase, ReclaimRecord, Source, Teardown, Way
from ..record.history import History, HistoryUnavailable
from .client import Record, ServiceAbsent
from .context import Context

R = TypeVar("R")

MAX_SEC = 60.0  # for a journal of years
OWN = "Other users' reclaims are shown only to whom polkit allows it."


async def book(
    context: Context,
    since_usec: int,
    take: Callable[[R | ReclaimRecord], None],
    read: Callable[[History, int], Iterator[R]],
) -> None:
    """`take` gets what `read` does since then, oldest first. Failure where neither can be asked."""
    history = context.world.history
    stop = threading.Event()

    taken = False

    def work() -> None:
        nonlocal taken
        for record in read(history, since_usec) if history else ():
            take(record)
            taken = True
            if stop.is_set():
                break

    try:
        await asyncio.to_thread(work)
    except HistoryUnavailable as error:
        context.out.note(f"{error} {'The rest is left out.' if taken else 'The service is asked.'}")
        history = None
    finally:
        stop.set()
    if taken:
        return
    if history is None:
        rows = await _of_service(context, since_usec, 0)
    else:  # a host without journald: the service remembers the last ones
        rows = []
        with suppress(ServiceAbsent):
            rows = await _of_service(context, since_usec, 0)
    for row in reversed(rows):
        take(to_record(row))


async def rows(
    context: Context,
    since_usec: int,
    until_usec: int,
    *,
    most: int | None = None,
    wanted: Callable[[Record], bool] | None = None,
) -> list[Record]:
    """Newest first, with the keys of ListReclaims. What was not read whole is said so."""
    if most == 0:  # for the journal it would be no bound
        return []
    history = context.world.history
    if history is None:
        return await _of_service(context, since_usec, until_usec, most=most, wanted=wanted)
    try:
        found = await asyncio.to_thread(
            history.find,
            since_usec=since_usec,
            until_usec=until_usec,
            limit=most or 0,
            wanted=(lambda record: wanted(to_row(record))) if wanted else (lambda record: True),
            max_sec=MAX_SEC,
        )
    except HistoryUnavailable as error:
        context.out.note(f"{error} The service is asked.")
        return await _of_service(context, since_usec, until_usec, most=most, wanted=wanted)
    if not found.complete:
        context.out.note("The journal was not read to its beginning, which takes long: use --since=.")
    if not found.records:
        with suppress(ServiceAbsent):
            return await _of_service(context, since_usec, until_usec, most=most, wanted=wanted)
    return [to_row(record) for record in found.records]


async def _of_service(
    context: Context,
    since_usec: int,
    until_usec: int,
    *,
    most: int | None = None,
    wanted: Callable[[Record], bool] | None = None,
) -> list[Record]:
    with closing(await context.service()) as service:
        found = await service.reclaims(since_usec, until_usec, most=most, wanted=wanted)
    if os.geteuid() != 0:
        context.out.note(OWN)
    return found


def to_row(record: ReclaimRecord) -> Record:
    """As ListReclaims would give it."""
    row = {name: value for name in _RECORD if (value := getattr(record, name)) is not None}
    row["teardowns"] = [
        {name: value for name in _TEARDOWN if (value := getattr(teardown, name)) is not None}
        for teardown in record.teardowns
    ]
    return row


_RECORD = tuple(item.name for item in fields(ReclaimRecord))
_TEARDOWN = tuple(item.name for item in fields(Teardown))


def to_record(row: Record) -> ReclaimRecord:
    """A row of ListReclaims as the record that it was made from; keys of a later version are left out."""
    values: dict[str, Any] = {key: row[key] for key in row if key in ReclaimRecord.__dataclass_fields__}
    values |= {"way": Way(row["way"]), "outcome": Outcome(row["outcome"]), "mode": Mode(row["mode"])}
    values["teardowns"] = tuple(_to_teardown(teardown) for teardown in row.get("teardowns", ()))
    return ReclaimRecord(**values)


def _to_teardown(row: Record) -> Teardown:
    values: dict[str, Any] = {key: row[key] for key in row if key in Teardown.__dataclass_fields__}
    return Teardown(**values | {"phase": Phase(row["phase"]), "source": Source(row["source"])})
