"""list: what is dying, by live cgroup."""

from __future__ import annotations

from contextlib import closing

from ...text import counted, printable, size
from .. import local
from ..client import Record
from ..context import Context
from ..exits import Exit
from ..records import most_dying_first, shown_residue, with_user
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
    found, dying = await _read(context)
    out = context.out
    rows = [with_user(row) for row in most_dying_first(found)]
    if out.as_json:
        out.json(rows)
        return Exit.OK
    told = f"{counted(dying, 'dying memcg')} on this machine, which cgroup v1 does not count by cgroup."
    empty = told if dying else "Nothing is dying."
    out.table(COLUMNS, [_row(row, context.now_usec) for row in rows], "cgroup", empty=empty)
    if out.legend and rows and "dying" not in rows[0]:
        out.line(told)
    return Exit.OK


async def _read(context: Context) -> tuple[list[Record], int]:
    """Residues, and how many are dying in all: of the service, or of the kernel where it does not run."""
    service = await context.service_or_say()
    if service is None:
        host = local.host(context.world.roots)
        return local.residues(host), local.total_dying(host)
    with closing(service):
        return await service.residues(), int(await service.property("DyingCount"))


def _row(row: Record, now_usec: int) -> Row:
    dirty_bytes = row.get("dirty_bytes", 0) + row.get("writeback_bytes", 0)
    next_usec = row.get("next_usec", 0)
    return (
        shown_residue(row),
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
