"""Whose turn it is: users make and remove cgroups at will, and shall wait for each other's but once."""

from __future__ import annotations

import re
from collections.abc import Iterable

_USER_SLICE = re.compile(r"/user\.slice/user-[^/]+\.slice(?=/|$)")


class Turns:
    """Pure. Owners are the user slices, and the rest of the tree as one."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}  # owner's last turn; of those that waited then
        self._turn = 0

    def next(self, paths: Iterable[str]) -> str:
        """One of the paths that wait: its owner's last turn is the longest ago, and none of its is deeper."""
        owned = {path: owner(path) for path in paths}
        chosen = min(owned, key=lambda path: (self._last.get(owned[path], 0), -path.rstrip("/").count("/")))
        self._turn += 1
        self._last = {each: self._last[each] for each in set(owned.values()) if each in self._last}
        self._last[owned[chosen]] = self._turn
        return chosen


def owner(path: str) -> str:
    """The user slice that a cgroup path is in; empty for all others."""
    match = _USER_SLICE.match(path)
    return match[0] if match else ""
