"""Rows and records as they come over the bus, made readable: who, what, where."""

from __future__ import annotations

from collections.abc import Iterable

from ..model import UNNAMED
from ..paths import uid_of_path
from ..text import counted, listed, printable
from .client import Record
from .context import user_name

SHORT_ID = 8


def to_path(name: str) -> str:
    """A cgroup path of a slice's name, which says where it is (systemd.slice(5)), or of the path itself."""
    if name == "-.slice":
        return "/"
    if "/" not in name and name.endswith(".slice"):
        parts = name.removesuffix(".slice").split("-")
        return "/" + "/".join("-".join(parts[: at + 1]) + ".slice" for at in range(len(parts)))
    return "/" + name.strip("/")


def shown_path(path: str) -> str:
    """A cgroup path as systemd's tools show it, without the first slash."""
    return printable(path.strip("/")) or "/"


def shown_residue(row: Record) -> str:
    """The path of a row of ListResidues; what other users have below a slice is one sum without an inode."""
    return shown_path(row["path"]) + ("" if "inode" in row else "/*")


def with_user(row: Record) -> Record:
    """The row with `uid`, where its path says so, and `user` beside it."""
    uid = row.get("uid", uid_of_path(row["path"]))
    return row if uid is None else {**row, "uid": uid, "user": user_name(uid)}


def with_users(record: Record) -> Record:
    """The record with `user` beside each `uid` of its teardowns."""
    teardowns = [
        {**teardown, "user": user_name(teardown["uid"])} if "uid" in teardown else teardown
        for teardown in record.get("teardowns", [])
    ]
    return {**record, "teardowns": teardowns}


def users_of(record: Record) -> list[str]:
    return list(
        dict.fromkeys(
            user_name(teardown["uid"]) for teardown in record.get("teardowns", []) if "uid" in teardown
        )
    )


def units_of(record: Record) -> list[str]:
    return list(dict.fromkeys(teardown["unit"] for teardown in record.get("teardowns", [])))


def what(record: Record) -> str:
    """ "session 67 (alice, sshd)", "3 sessions (alice, bob)", "" for a sweep."""
    teardowns = record.get("teardowns", [])
    if not teardowns:
        return ""
    who = [printable(name) for name in users_of(record)]
    count = len(teardowns) + int(record.get("context", {}).get(UNNAMED, 0))
    if count > 1:
        noun = "session" if all("session_id" in teardown for teardown in teardowns) else "unit"
        return counted(count, noun) + (f" ({listed(who)})" if who else "")
    only = teardowns[0]
    name = f"session {only['session_id']}" if "session_id" in only else str(only.get("unit", ""))
    details = [*who, *([only["service"]] if "service" in only else [])]
    return printable(f"{name} ({', '.join(details)})" if details else name)


def dying_change(record: Record) -> str:
    """ "9 -> 3"; "" where nothing was counted, or the whole machine, as on cgroup v1."""
    if record.get("mode") == "shared" or record.get("target_inode") == 0:
        return ""
    return f"{record.get('dying_before', 0)} -> {record.get('dying_after', 0)}"


def most_dying_first(rows: Iterable[Record]) -> list[Record]:
    return sorted(rows, key=lambda row: (-row.get("dying", 0), -row.get("file_bytes", 0), row["path"]))
