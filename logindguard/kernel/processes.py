"""Which processes a cgroup holds, and where a process is.

Hard facts (cgroups(7), proc(5), kernel/cgroup/cgroup.c):

- /proc/PID/cgroup has a line for each hierarchy, `ID:controllers:path`. That of cgroup
  v2 has the ID 0 and no controllers. Anybody may read it, with hidepid=2 root's group.
- cgroup.procs lists the processes of that cgroup alone, not those below, and none that
  is a zombie already. It names those that it cannot see from its PID namespace 0.
- In /proc/PID/stat the name, which may hold any character, ends at the last `)`.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

from .cgroupfs import Cgroup, CgroupGone, Hierarchy, KernelRefused
from .lines import lines_of

PROC = Path("/proc")


class NoProcess(Exception):
    """There is no such process any more, or it is in no cgroup of the hierarchy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The cgroup that a process is in, and who else is there."""

    path: str
    inode: int
    pid: int
    parents: dict[int, int]  # parent by process of the cgroup and those below it


def look(pid: int, hierarchy: Hierarchy, proc: Path = PROC) -> Scene:
    """One reading. Raises NoProcess or CgroupGone when it came too late, KernelRefused for the rest."""
    path = cgroup_of(pid, hierarchy, proc)
    with hierarchy.open(path) as cgroup:
        parents: dict[int, int] = {}
        for member in _members(cgroup):
            if member == 0:
                raise KernelRefused(path, "cgroup.procs", OSError(errno.EXDEV, "of another PID namespace"))
            try:
                parents[member] = parent_of(member, proc)
            except NoProcess:  # it has ended since
                continue
        return Scene(path=path, inode=cgroup.inode, pid=pid, parents=parents)


def cgroup_of(pid: int, hierarchy: Hierarchy, proc: Path = PROC) -> str:
    try:
        lines = lines_of(proc / str(pid) / "cgroup")
    except OSError as error:
        raise NoProcess(pid) from error
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" if hierarchy.version == 2 else "memory" in controllers.split(","):
            return path
    raise NoProcess(pid)


def parent_of(pid: int, proc: Path = PROC) -> int:
    try:
        stat = (proc / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError) as error:
        raise NoProcess(pid) from error
    except OSError as error:  # it may be there all the same
        raise KernelRefused(f"/proc/{pid}", "stat", error) from error
    return int(stat.rpartition(")")[2].split()[1])


def _members(cgroup: Cgroup) -> list[int]:
    found = [int(word) for word in cgroup.read("cgroup.procs").split()]
    for child in cgroup.children():
        try:
            found += _members(child)
        except CgroupGone:
            continue
    return found
