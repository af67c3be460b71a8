"""inventory: single dying memcgs by the cgroup they were, where the kernel lists them; counts elsewhere."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from ...kernel.cgroupfs import within
from ...kernel.inventory import DyingMemcg, NoInventory, dying_memcgs
from ...text import counted, printable, size
from .. import local
from ..client import Record
from ..context import Context
from ..exits import Exit, Failure
from ..records import most_dying_first, shown_path, to_path, with_user
from ..table import Column, Row

MEMCGS = (
    Column("CACHE", right=True),
    Column("ANON", right=True),
    Column("USER"),
    Column("MEMCG", shrink=30, keep_end=True),
)
PARENTS = (
    Column("DYING", right=True),
    Column("CACHE", right=True),
    Column("UNDER", shrink=30, keep_end=True),
)
NO_PAGES = "MGLRU is off on this machine: what they hold is not told."


async def run(context: Context) -> Exit:
    host = local.host(context.world.roots)
    top = to_path(context.options.argument)
    try:
        found = await asyncio.to_thread(dying_memcgs, context.world.roots.sys, host.hierarchy.inode_of)
    except NoInventory as error:
        _check(context, host, top)
        context.out.note(f"{error}: they are counted by live parent here.")
        return _parents(context, host, top)
    found = [each for each in found if within(each.path, top)]
    if not found:
        _check(context, host, top)
    rows = [with_user(asdict(each)) for each in found[: context.options.number]]
    if context.out.as_json:
        context.out.json({"source": "lru_gen", "memcgs": rows})
        return Exit.OK
    context.out.table(MEMCGS, [_row(row) for row in rows], "memcg", empty="Nothing is dying.")
    if context.out.legend and found:
        context.out.line(_sum(found) if host.features.mglru else NO_PAGES)
    return Exit.OK


def _check(context: Context, host: local.Host, path: str) -> None:
    """What is misspelt has nothing dying either."""
    if host.hierarchy.inode_of(path) is None:
        raise Failure(f"There is no cgroup '{printable(context.options.argument)}'.", Exit.NOT_FOUND)


def _row(row: Record) -> Row:
    return (
        size(row["file_bytes"]) if row["file_bytes"] else "",
        size(row["anon_bytes"]) if row["anon_bytes"] else "",
        str(row.get("user", "")),
        shown_path(row["path"]),
    )


def _sum(found: list[DyingMemcg]) -> str:
    empty = sum(1 for each in found if not each.file_bytes + each.anon_bytes)
    held = size(sum(each.file_bytes + each.anon_bytes for each in found))
    without = f", {empty} of them without any page" if empty else ""
    return f"{counted(len(found), 'dying memcg')} in all hold {held}{without}."


def _parents(context: Context, host: local.Host, top: str) -> Exit:
    rows = [row for row in most_dying_first(local.residues(host)) if within(row["path"], top)]
    rows = rows[: context.options.number]
    if context.out.as_json:
        context.out.json({"source": "counts", "dying_count": local.total_dying(host), "parents": rows})
        return Exit.OK
    cells = [
        (
            str(row.get("dying", "")),
            size(row["file_bytes"]) if row["file_bytes"] else "",
            shown_path(row["path"]),
        )
        for row in rows
    ]
    context.out.table(PARENTS, cells, "parent", empty="No live cgroup shows anything dying under it.")
    if context.out.legend:
        context.out.line(f"{counted(local.total_dying(host), 'dying memcg')} on this machine.")
    return Exit.OK
