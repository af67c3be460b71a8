"""Where a unit's cgroups are: looked up in the tree itself, never taken from who asks.

Hard facts (systemd, src/basic/unit-name.c, src/basic/cgroup-util.c):

- A unit's cgroup has the name of the unit, with "_" before it where that could be mistaken
  for a control file (cg_escape()).
- Below user@UID.service a user's own manager makes cgroups, and any user can name one
  "ssh.service": what is found there is none of the system's units.
"""

from __future__ import annotations

import re

from .cgroupfs import MAX_DEPTH, Cgroup, CgroupGone, Hierarchy, KernelError

MAX_VISITED = 50_000
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,240}\.(?:slice|scope|service|mount|socket|swap)")
_SESSION = re.compile(r"[A-Za-z0-9]{1,64}")


def is_unit(name: str) -> bool:
    """Whether it can be the name of a unit that has a cgroup."""
    return _UNIT.fullmatch(name) is not None


def scope_of(session_id: str) -> str | None:
    """The unit of a logind session (src/login/logind-session.c); None where it is no session id."""
    return f"session-{session_id}.scope" if _SESSION.fullmatch(session_id) else None


def find(hierarchy: Hierarchy, roots: tuple[str, ...], unit: str) -> list[str]:
    """Paths of the live cgroups of one of the system manager's units, below `roots`.

    Raises KernelError where the tree cannot be walked.
    """
    found: list[str] = []
    visited = 0

    def look(cgroup: Cgroup, depth: int) -> None:
        nonlocal visited
        visited += 1
        name = cgroup.path.rpartition("/")[2]
        if name.removeprefix("_") == unit:
            found.append(cgroup.path)
        if name.startswith("user@"):
            return
        if depth > MAX_DEPTH or visited > MAX_VISITED:
            raise KernelError(cgroup.path, "", "the tree is too large to be searched")
        for child in cgroup.children():
            try:
                look(child, depth + 1)
            except CgroupGone:
                continue

    for root in roots or ("/",):
        try:
            with hierarchy.open(root) as cgroup:
                look(cgroup, 0)
        except CgroupGone:
            continue
    return found
