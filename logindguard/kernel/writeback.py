"""The kernel's own clocks: after which time what is dirty now has been written, with nobody's help.

Hard facts (Documentation/admin-guide/sysctl/vm.rst, fs/fs-writeback.c, fs/jbd2):

- The flusher wakes every dirty_writeback_centisecs and writes what is older than
  dirty_expire_centisecs. With dirty_writeback_centisecs=0 it never wakes by itself: then data is
  written when somebody syncs or memory runs short, and no clock says when.
- The journal of ext4 commits every 5 s, or as the mount's commit= says (btrfs: 30 s). A commit turns
  metadata into dirty buffers of the block device, which expire in their turn: twice the flusher's time.
- A mount shows commit= only where it is not the default.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .lines import lines_of

_COMMIT_SEC = {"ext3": 5, "ext4": 5, "btrfs": 30}  # where the mount does not say


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """As the kernel has them by itself."""

    expire_usec: int = 30_000_000
    writeback_usec: int = 5_000_000  # 0: the flusher does not wake by itself
    commit_usec: int = 5_000_000  # the longest of all mounts

    @property
    def period_usec(self) -> int:
        """Between two moments at which more may have been written: two turns of the slower clock."""
        return 2 * max(self.writeback_usec, self.commit_usec)

    @property
    def settled_usec(self) -> int:
        """After this long data is written, and so is the metadata that its commit left dirty."""
        return 2 * (self.expire_usec + self.writeback_usec) + self.commit_usec


def read_clocks(proc: Path = Path("/proc")) -> Clocks:
    """What cannot be read is as the kernel has it by itself."""
    usual = Clocks()
    expire_usec = _centisecs(proc / "sys/vm/dirty_expire_centisecs")
    writeback_usec = _centisecs(proc / "sys/vm/dirty_writeback_centisecs")
    return Clocks(
        expire_usec=usual.expire_usec if expire_usec is None else expire_usec,
        writeback_usec=usual.writeback_usec if writeback_usec is None else writeback_usec,
        commit_usec=max(_commits_sec(proc / "self/mounts"), default=usual.commit_usec // 1_000_000)
        * 1_000_000,
    )


def _centisecs(path: Path) -> int | None:
    try:
        return max(0, int(path.read_text())) * 10_000
    except (OSError, ValueError):
        return None


def _commits_sec(mounts: Path) -> list[int]:
    """Of each file system that commits, "ro" or not: ProtectSystem= has this service see all of them so."""
    try:
        lines = lines_of(mounts)
    except OSError:
        return []
    found: list[int] = []
    for words in (line.split(" ") for line in lines):
        if len(words) < 4 or words[2] not in _COMMIT_SEC:
            continue
        options = dict(option.partition("=")[::2] for option in words[3].split(","))
        said = options.get("commit", "")
        found.append(int(said) if said.isdecimal() and int(said) else _COMMIT_SEC[words[2]])
    return found
