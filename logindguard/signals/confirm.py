"""A signal is checked against the tree before it is believed.

systemd repeats UnitNew/UnitRemoved for dead scopes, and logind says SessionRemoved
while processes of the session live on in its scope: only a directory that is
gone, or has become another one, is a cgroup that ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ..model import Source
from .registry import Registry

InodeOf = Callable[[str], int | None]
"""The inode of the cgroup directory at a path now, None when there is none."""


def monotonic_usec() -> int:
    return time.monotonic_ns() // 1_000


def confirm_ended(registry: Registry, inode_of: InodeOf, unit: str, source: Source) -> None:
    """Ends those cgroups of `unit` that are no longer there."""
    for path, inode in registry.live(unit):
        if inode_of(path) != inode:
            registry.ended(path, source, monotonic_usec())
