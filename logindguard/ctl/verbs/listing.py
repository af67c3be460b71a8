"""list: what is dying, by live cgroup."""

from __future__ import annotations

from contextlib import closing

from ...text import counted, printable, size
from .. import local
from ..client import Record
from ..context import Context
from ..exits import Exit
from ..records import most_dying_first, shown_path, with_user
from ..table import Cell, Column, Row
from ..terminal import Colour
from ..times import ago

COLUMNS = (
    Column("CGROUP", shrink=28, keep_end=True),
    Column("USER"),
    Column("DYING", right=True),
    Column("CACHE", right=True),
    Column("MAPPED", right=True),
    Column("DIRTY", right=True),
    Column("SHMEM", right=True, wide=True),
    Column("ANON", right=True, wide=True),
    Column("NEXT", right=True, wide=True),
    Column("WHY", shrink=20),
)
MANY = 1000  # dying under one parent: worth a colour


async def run(context: Context) -> Exit:
    rows = [with_user(row) for row in most_dying_first(await residues(context))]
    if context.out.as_json:
        context.out.json(rows)
    else:
        context.out.table(
            COLUMNS, [_row(row, context.now_usec) for row in rows], "cgroup", empty="Nothing is dying."
        )
    return Exit.OK


async def residues(context: Context) -> list[Record]:
    """Of the service, or of the kernel where it does not run."""
    service = await context.service_or_say()
    if service is None:
        host = local.host(context.world.roots)
        rows = local.residues(host)
        if not rows and (dying := local.total_dying(host)):
            context.out.note(f"This kernel does not tell where {counted(dying, 'dying memcg')} hang.")
        return rows
    with closing(service):
        return await service.residues()


def _row(row: Record, now_usec: int) -> Row:
    dirty_bytes = row.get("dirty_bytes", 0) + row.get("writeback_bytes", 0)
    next_usec = row.get("next_usec", 0)
    return (
        shown_path(row["path"]),
        printable(str(row.get("user", ""))),
        Cell(str(row.get("dying", "")), Colour.YELLOW if row.get("dying", 0) >= MANY else None),
        _bytes(row.get("file_bytes", 0)),
        _bytes(row.get("mapped_bytes", 0)),
        _bytes(dirty_bytes),
        _bytes(row.get("shmem_bytes", 0)),
        _bytes(row.get("anon_bytes", 0)),
        ago(next_usec, now_usec) if next_usec else "",
        "not read this time, which takes long here"
        if row.get("unread")
        else printable(row.get("reason", "")),
    )


def _bytes(count_bytes: int) -> str:
    return size(count_bytes) if count_bytes else ""
