"""blame: who leaves dying memcgs behind, how often, and what became of them."""

from __future__ import annotations

from ...blame import Blame
from ...owners import By, owner_by, stranger_by
from ...text import counted
from .. import now, owners, past
from ..client import Record
from ..context import Context
from ..exits import Exit
from ..times import stamp


async def run(context: Context) -> Exit:
    by = By(context.options.by or By.UNIT)
    since_usec = context.time("since")
    blame = Blame(owner_by(by, owners.timers(context.world.roots)), stranger_by(by))
    await past.book(context, since_usec, blame.book, lambda history, since: history.bookings(since))
    present = await now.read(context)
    blame.close(present.dying, present.reasons)
    rows = [owners.to_row(by, owner, account) for owner, account in blame.ranked()]
    if context.options.number is not None:
        rows = rows[: context.options.number]
    if context.out.as_json:
        context.out.json(rows)
    else:
        _show(context, by, rows, blame, present.total)
    return Exit.OK


def _show(context: Context, by: By, rows: list[Record], blame: Blame, total: int) -> None:
    out = context.out
    cells = [owners.cells(by, row, context.now_usec) for row in rows]
    out.table(owners.columns(by), cells, str(by), empty="No teardown was told of.")
    if not out.legend or not rows:
        return
    since = f" since {stamp(blame.first_usec)}" if blame.first_usec else ""
    out.line(f"{counted(blame.teardowns, 'teardown')}{since}, {counted(total, 'memcg')} dying now.")
    if any(row["estimate"] for row in rows):
        out.line(owners.ESTIMATE)
    if any(owners.is_stranger(by, row) for row in rows):
        out.line(owners.STRANGERS)
