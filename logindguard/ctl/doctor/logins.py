"""Who logs in often, and how many memory cgroups a lingering user manager would have saved.

Without lingering, a user's last logout removes user@UID.service, user-runtime-dir@UID.service and
user-UID.slice beside the session's own scope, and the next login makes them anew. With it
(`loginctl enable-linger`) they stay, and each login only adds its scope below the same slice.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from ..client import Record
from ..context import user_name

_MANAGER = re.compile(r"(?:user@|user-runtime-dir@|user-)([0-9]+)\.(?:service|slice)")
OFTEN = 50  # logins a week
DAYS = 7


@dataclass(frozen=True, slots=True)
class Logins:
    """Of one user in the last DAYS. `avoidable` teardowns would not have come with lingering."""

    user: str
    sessions: int
    avoidable: int


def from_records(records: Iterable[Record]) -> tuple[Logins, ...]:
    """Counted from the teardowns that the service told of, most sessions first."""
    sessions: Counter[int] = Counter()
    avoidable: Counter[int] = Counter()
    for record in records:
        for teardown in record.get("teardowns", []):
            if match := _MANAGER.fullmatch(str(teardown.get("unit", ""))):
                avoidable[int(match[1])] += 1
            elif "session_id" in teardown and "uid" in teardown:
                sessions[teardown["uid"]] += 1
    return tuple(Logins(user_name(uid), count, avoidable[uid]) for uid, count in sessions.most_common())


def from_journal(names: Iterable[str]) -> tuple[Logins, ...]:
    """Counted from logind's own entries, one name a login: how often a user was new is not known there."""
    return tuple(Logins(name, count, 0) for name, count in Counter(names).most_common())
