"""Owners of teardowns as rows: for programs, for tables, for the page of a report."""

from __future__ import annotations

from typing import Any

from ..blame import Account
from ..owners import By
from ..text import printable, size
from .client import Record
from .context import user_name
from .records import shown_path
from .roots import Roots
from .table import Cell, Column, Row
from .terminal import Colour
from .times import ago

ESTIMATE = "~ marks estimates: what hangs dying under one cgroup cannot be told apart."
STRANGERS = "Not known: units that units.include leaves out, or from before all records."
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


def timers(roots: Roots) -> frozenset[str]:
    """Units that a timer of their name starts; of a template "name@*.service"."""
    directories = (roots.usr / "lib", roots.etc, roots.run)
    stems = [file.stem for each in directories for file in (each / "systemd/system").glob("*.timer")]
    return frozenset(f"{stem}*.service" if stem.endswith("@") else f"{stem}.service" for stem in stems)


def to_row(by: By, owner: str, account: Account) -> Record:
    who: dict[str, Any] = {str(by): owner}
    if by is By.USER and owner.isdecimal():
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


def is_stranger(by: By, row: Record) -> bool:
    return not row.get(str(by)) and "uid" not in row


def columns(by: By) -> tuple[Column, ...]:
    return (Column(str(by).upper(), shrink=28, keep_end=by is By.SLICE), *FIGURES)


def cells(by: By, row: Record, now_usec: int) -> Row:
    """One for each column."""

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
    if is_stranger(by, row):
        return "not known"
    name = str(row.get("user", row.get(str(by), "")))
    return shown_path(name) if by is By.SLICE else printable(name)
