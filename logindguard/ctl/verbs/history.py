"""history: past reclaims, out of the journal."""

from __future__ import annotations

import fnmatch
import pwd
from collections.abc import Callable

from ...text import size, span
from .. import past
from ..client import Record
from ..context import Context
from ..exits import Exit, Failure
from ..records import SHORT_ID, dying_change, shown_path, units_of, what, with_users
from ..table import Cell, Column, Row
from ..terminal import Colour
from ..times import short_time

COLUMNS = (
    Column("TIME"),
    Column("ID"),
    Column("WAY"),
    Column("CGROUP", shrink=24, keep_end=True, wide=True),
    Column("WHAT", shrink=24),
    Column("OUTCOME"),
    Column("DYING", right=True),
    Column("FREED", right=True),
    Column("TOOK", right=True, wide=True),
)
_COLOURS = {"failed": Colour.RED, "released": Colour.GREEN, "skipped": Colour.GREY, "gone": Colour.GREY}


async def run(context: Context) -> Exit:
    options = context.options
    now_usec = context.now_usec
    since_usec, until_usec = context.time("since"), context.time("until")
    if since_usec and until_usec and since_usec > until_usec:
        raise Failure("--since= must be before --until=.", Exit.USAGE)
    wanted = _filter(options.unit, options.user)
    records = await past.rows(context, since_usec, until_usec, most=options.number, wanted=wanted)
    if not options.reverse:
        records.reverse()
    if context.out.as_json:
        context.out.json([with_users(record) for record in records])
    else:
        context.out.table(COLUMNS, [_row(record, now_usec) for record in records], "reclaim")
    return Exit.OK


def _filter(unit: str | None, user: str | None) -> Callable[[Record], bool] | None:
    uid = None if user is None else _uid(user)
    if unit is None and uid is None:
        return None

    def wanted(record: Record) -> bool:
        names = [*units_of(record), str(record.get("target", "")).rpartition("/")[2]]
        if unit is not None and not any(fnmatch.fnmatchcase(name, unit) for name in names):
            return False
        return uid is None or any(teardown.get("uid") == uid for teardown in record.get("teardowns", []))

    return wanted


def _uid(user: str) -> int:
    if user.isascii() and user.isdecimal():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError as error:
        raise Failure(f"There is no user '{user}'.", Exit.NOT_FOUND) from error


def _row(record: Record, now_usec: int) -> Row:
    outcome = str(record.get("outcome", ""))
    freed_bytes = record.get("freed_bytes", 0)
    wall_usec = record.get("wall_usec", 0)
    return (
        short_time(record.get("realtime_usec", 0), now_usec),
        str(record.get("id", ""))[:SHORT_ID],
        str(record.get("way", "")),
        shown_path(str(record.get("target", ""))),
        what(record),
        Cell(outcome, _COLOURS.get(outcome)),
        dying_change(record),
        size(freed_bytes) if freed_bytes else "",
        span(wall_usec) if wall_usec else "",
    )
