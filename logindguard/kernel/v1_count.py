"""How many memcgs are dying on cgroup v1, which counts them for the whole hierarchy alone.

Hard facts (kernel/cgroup/cgroup-v1.c, fs/kernfs/inode.c; measured on 6.18):

- The memory line of /proc/cgroups counts online and dying memcgs alike, so the
  dying ones are that number less the directories, the root included.
- A kernfs directory has 2 links and one for each directory below it, so those
  without any are counted without being opened.
- A cgroup namespace or a bind mount may show less than the whole hierarchy. The
  number in /proc/cgroups is that of the whole all the same, and dying memcgs
  cannot be told from those that are only out of sight.
"""

from __future__ import annotations

import os
from pathlib import Path

from .cgroupfs import BadReading, Hierarchy


def total_dying(hierarchy: Hierarchy, proc: Path = Path("/proc")) -> int:
    """Dying memcgs of the whole hierarchy; right only where the mount shows all of it.

    Raises OSError and BadReading.
    """
    for line in (proc / "cgroups").read_text(errors="replace").splitlines():
        words = line.split()
        if words[:1] == ["memory"]:
            try:
                return max(0, int(words[2]) - _directories(hierarchy.mount))
            except (ValueError, IndexError) as error:
                raise BadReading(str(proc), "cgroups", str(error)) from error
    return 0


def _directories(top: Path) -> int:
    count, above = 1, [os.fspath(top)]
    while above:
        try:
            with os.scandir(above.pop()) as entries:
                below = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:  # removed meanwhile
            continue
        count += len(below)
        above += [entry.path for entry in below if not _is_leaf(entry)]
    return count


def _is_leaf(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.stat(follow_symlinks=False).st_nlink == 2
    except OSError:
        return True
