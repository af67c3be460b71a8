"""How many memcgs are dying on cgroup v1, which counts them for the whole hierarchy alone.

Hard facts (kernel/cgroup/cgroup-v1.c, fs/kernfs/inode.c; measured on 6.18):

- The memory line of /proc/cgroups counts online and dying memcgs alike, so the
  dying ones are that number less the directories, the root included.
- A kernfs directory has 2 links and one for each directory below it. So those without
  any are counted without being opened, and one that has as many as before, all of them
  still there, need not be listed again.
- A cgroup namespace or a bind mount may show less than the whole hierarchy. The
  number in /proc/cgroups is that of the whole all the same, and dying memcgs
  cannot be told from those that are only out of sight.
"""

from __future__ import annotations

import os
from pathlib import Path

from .cgroupfs import BadReading, Hierarchy


class DyingCount:
    """Counts again and again, and lists only directories that changed since the last time.

    May be shared by threads.
    """

    def __init__(self, hierarchy: Hierarchy, proc: Path = Path("/proc")) -> None:
        self._hierarchy = hierarchy
        self._proc = proc
        self._below: dict[str, list[str]] = {}  # paths of directories by that of the one they are in

    def total(self) -> int:
        """Dying memcgs of the whole hierarchy; right only where the mount shows all of it.

        Raises OSError and BadReading.
        """
        for line in (self._proc / "cgroups").read_text(errors="replace").splitlines():
            words = line.split()
            if words[:1] == ["memory"]:
                try:
                    return max(0, int(words[2]) - self._directories())
                except (ValueError, IndexError) as error:
                    raise BadReading(str(self._proc), "cgroups", str(error)) from error
        return 0

    def _directories(self) -> int:
        top = os.fspath(self._hierarchy.mount)
        count, above = 1, [(top, _links(top))]
        listed: dict[str, list[str]] = {}
        while above:
            path, links = above.pop()
            below = self._below.get(path, [])
            found = [_links(each) for each in below]
            if len(below) + 2 != links or 0 in found:  # else the same: one that came was another that went
                below = _list(path)
                found = [_links(each) for each in below]
            listed[path] = below
            count += len(below)
            above += [(each, links) for each, links in zip(below, found, strict=True) if links != 2]
        self._below = listed
        return count


def _list(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:  # removed meanwhile
        return []


def _links(path: str) -> int:
    """Of a directory, 0 of one that is gone."""
    try:
        return os.stat(path, follow_symlinks=False).st_nlink  # noqa: PTH116  # no Path for each of thousands
    except OSError:
        return 0
