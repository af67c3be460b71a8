"""A record in one sentence that an administrator can act on."""

from __future__ import annotations

from collections.abc import Mapping

from ..model import Mode, Outcome, ReclaimRecord, Teardown, Way
from ..text import counted, listed, printable, size


def sentence(record: ReclaimRecord, names: Mapping[int, str] | None = None) -> str:
    """One line without a full stop, as journal lines are; `names` maps uid to user name."""
    return printable(f"{record.target.strip('/') or '/'}: {_told(record, _what(record, names or {}))}")


def _told(record: ReclaimRecord, what: str) -> str:
    # cgroup v1 counts them only all together.
    whose = " of the whole machine" if record.mode is Mode.SHARED else ""
    dying = f"dying memcgs{whose} {record.dying_before} -> {record.dying_after}"
    where = " before its removal" if record.way is Way.BEFORE else f", {dying}{_live(record)}"
    did = f"released {size(record.freed_bytes)} of page cache of {what}{where}"
    match record.outcome:
        case Outcome.RELEASED:
            return did if record.freed_bytes else f"nothing is left of {what}, {dying}{_live(record)}"
        case Outcome.PARTIAL:
            return f"{did}; {record.reason}"
        case Outcome.MAPPED_KEPT:
            return f"{did}; kept {size(record.mapped_kept_bytes)} that live processes map"
        case Outcome.UNCHANGED:
            return f"could release nothing of {what}, {dying}; {record.reason}"
        case Outcome.SKIPPED if record.way is Way.BEFORE or not record.target_inode:  # nothing was counted
            return f"left {what} alone; {record.reason}"
        case Outcome.SKIPPED if not record.dying_before:
            return f"nothing dying is left of {what}"
        case Outcome.SKIPPED:
            return f"left {what} alone, {dying}; {record.reason}"
        case Outcome.GONE:
            return f"was removed before the page cache of {what} was released"
        case Outcome.FAILED:
            return f"could not release the page cache of {what}, {dying}; {record.reason}"


def _live(record: ReclaimRecord) -> str:
    """What it cost live cgroups, where that was measured."""
    if record.stolen_pages or (record.mode is Mode.SHARED and record.way is not Way.BEFORE):
        return f", live cgroups lost at most {counted(record.stolen_pages, 'page')}"
    if record.mode is Mode.PRECISE:
        return ", nothing live touched"
    return ""


def _what(record: ReclaimRecord, names: Mapping[int, str]) -> str:
    teardowns = record.teardowns
    if not teardowns:
        return "dying memcgs"
    uids = dict.fromkeys(teardown.uid for teardown in teardowns if teardown.uid is not None)
    users = [names.get(uid, f"uid {uid}") for uid in uids]
    if len(teardowns) == 1:
        return _one(teardowns[0], users)
    noun = "session" if all(teardown.session_id for teardown in teardowns) else "unit"
    who = f" ({listed(users)})" if users else ""
    return f"{len(teardowns) + record.unnamed} ended {noun}s{who}"


def _one(teardown: Teardown, users: list[str]) -> str:
    what = f"session {teardown.session_id}" if teardown.session_id else teardown.unit
    detail = [*users, *([teardown.service] if teardown.service else [])]
    return f"{what} ({', '.join(detail)})" if detail else what
