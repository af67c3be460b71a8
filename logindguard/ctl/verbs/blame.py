"""blame: who leaves dying memcgs behind, how often, and what became of them."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from ...blame import Account, Blame
from ...owners import By, owner_by, stranger_by
from ...text import counted, printable, size
from .. import local, past
from ..client import Record
from ..context import Context, user_name
from ..exits import Exit
from ..records import shown_path
from ..roots import Roots
from ..table import Cell, Column, Row
from ..terminal import Colour
from ..times import ago, stamp

FIGURES = (
    Column("TEARDOWNS", right=True),
    Column("AT ONCE", right=True),
    Column("RECLAIMED", right=True),
    Column("LATER", right=True),
    Column("DYING", right=True),
    Column("FREED", right=True, wide=True),
    Column("LAST", right=True, wide=True),
    Column("WHY", shrink=16, wide=True),
)
ESTIMATE = "~ marks estimates: what hangs dying under one cgroup cannot be told apart."


async def run(context: Context) -> Exit:
    by = By(context.options.by or By.UNIT)
    since_usec = context.time("since")
    blame = Blame(owner_by(by, timers(context.world.roots)), stranger_by(by))
    blame.book_all(await past.records(context, since_usec))
    dying, reasons = await dying_now(context)
    blame.close(dying, reasons)
    rows = [
        _record(by, owner, account)
        for owner, account in sorted(blame.accounts.items(), key=lambda item: _order(*item))
        if account.teardowns or account.dying
    ]
    if context.options.number is not None:
        rows = rows[: context.options.number]
    if context.out.as_json:
        context.out.json(rows)
    else:
        _show(context, by, rows, blame, dying)
    return Exit.OK


def _order(owner: str, account: Account) -> tuple[float, int, str]:
    return (-account.dying, -account.teardowns, owner)


def timers(roots: Roots) -> frozenset[str]:
    """Units that a timer of their name starts; of a template "name@*.service"."""
    directories = (roots.usr / "lib", roots.etc, roots.run)
    stems = [file.stem for each in directories for file in (each / "systemd/system").glob("*.timer")]
    return frozenset(f"{stem}*.service" if stem.endswith("@") else f"{stem}.service" for stem in stems)


async def dying_now(context: Context) -> tuple[dict[str, int] | int, dict[str, str]]:
    """How many and why, by live parent; on cgroup v1, which has no such count, of the whole machine."""
    service = await context.service_or_say()
    if service is None:
        host = local.host(context.world.roots)
        rows, total = local.residues(host), local.total_dying(host)
        version = host.hierarchy.version
    else:
        with closing(service):
            rows, total = await service.residues(), int(await service.property("DyingCount"))
            version = await service.property("CgroupVersion")
    reasons = {row["path"]: row.get("reason", "") for row in rows}
    return (total if version == 1 else {row["path"]: row["dying"] for row in rows}), reasons


def _record(by: By, owner: str, account: Account) -> Record:
    who: dict[str, Any] = {str(by): owner}
    if by is By.USER and owner:
        who = {"uid": int(owner), "user": user_name(int(owner))}
    return {
        **who,
        "teardowns": account.teardowns,
        "at_once": round(account.at_once, 1),
        "reclaimed": round(account.reclaimed, 1),
        "later": round(account.later, 1),
        "dying": round(account.dying, 1),
        "estimate": not account.exact,
        "freed_bytes": round(account.freed_bytes),
        "last_usec": account.last_usec,
        "reason": account.why,
    }


def _show(context: Context, by: By, rows: list[Record], blame: Blame, dying: dict[str, int] | int) -> None:
    out = context.out
    columns = (Column(str(by).upper(), shrink=20, keep_end=by is By.SLICE), *FIGURES)
    cells = [_row(by, row, context.now_usec) for row in rows]
    out.table(columns, cells, str(by), empty="No teardown was told of.")
    if not out.legend or not rows:
        return
    total = dying if isinstance(dying, int) else sum(dying.values())
    since = f" since {stamp(blame.first_usec)}" if blame.first_usec else ""
    out.line(f"{counted(blame.teardowns, 'teardown')}{since}, {counted(total, 'memcg')} dying now.")
    if any(row["estimate"] for row in rows):
        out.line(ESTIMATE)


def _row(by: By, row: Record, now_usec: int) -> Row:
    def figure(name: str) -> str:
        if not row[name]:
            return ""
        mark = "~" if row["estimate"] else ""
        return f"{mark}{round(row[name])}" if row[name] >= 0.5 else "<1"

    return (
        _owner(by, row),
        str(row["teardowns"]) if row["teardowns"] else "",
        figure("at_once"),
        figure("reclaimed"),
        figure("later"),
        Cell(figure("dying"), Colour.YELLOW if row["dying"] else None),
        size(row["freed_bytes"]) if row["freed_bytes"] else "",
        ago(row["last_usec"], now_usec) if row["last_usec"] else "",
        printable(row["reason"]) if row["dying"] else "",
    )


def _owner(by: By, row: Record) -> str:
    name = str(row.get("user", row.get(str(by), "")))
    if not name:
        return "not known"
    return shown_path(name) if by is By.SLICE else printable(name)
