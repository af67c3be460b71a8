"""Makes the kernel let go of writeback structures: a memory cgroup of our own that comes and goes.

Hard facts (mm/backing-dev.c, mm/memcontrol.c; Delegate= in systemd.resource-control(5)):

- An inode that a memcg dirtied refers to that memcg by its writeback structure (cgwb), clean or not.
  cleanup_offline_cgwbs() takes inodes that are clean from those of dying memcgs, and is queued only when
  some memcg goes offline (wb_memcg_offline(), 5.14+). On a quiet host that can be long after.
- A cgroup with processes cannot hand the memory controller down. So the service moves itself one level
  down, as systemd wants it from whom it delegates to: Delegate=, told by the xattr user.delegate.
- systemd then runs ExecReload= and ExecStopPost= in a cgroup of their own beside ours, `.control`. It
  removes all of it when the service has ended, but not where Restart= starts it again: then it could not
  put the new process where the memory controller is handed down. So ExecStopPost= takes that back.
- Writeback by cgroup is of v2 alone.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from .cgroupfs import Hierarchy
from .lines import lines_of

MAIN, THROWN_AWAY, CONTROL = "main", "nudge", ".control"

log = logging.getLogger(__name__)


class Nudge:
    """Call it on a worker thread; nothing outside of the service's own cgroup is ever touched."""

    def __init__(self, hierarchy: Hierarchy, proc: Path = Path("/proc")) -> None:
        self._hierarchy = hierarchy
        self._proc = proc
        self._own: Path | None = None

    def prepare(self) -> None:
        """Moves this process, with all its threads, one level down where its cgroup is delegated to it."""
        try:
            own = self._cgroup()
            if own is None or not _is_delegated(own):
                log.debug("No cgroup is delegated to this service: none is made to nudge the kernel.")
                return
            (own / MAIN).mkdir(exist_ok=True)
            (own / MAIN / "cgroup.procs").write_text("0")
            (own / "cgroup.subtree_control").write_text("+memory")
        except OSError as error:
            log.info("No cgroup of this service's own can be made to nudge the kernel: %s.", error)
            return
        self._own = own

    def undo(self) -> None:
        """Makes room for the next process of the service, from ExecStopPost=; elsewhere it does nothing."""
        try:
            control = self._cgroup()
            if control is not None and control.name == CONTROL and _is_delegated(control.parent):
                (control.parent / "cgroup.subtree_control").write_text("-memory")
        except OSError as error:
            log.warning("The memory controller stays enabled below this service: %s.", error)

    def __call__(self) -> bool:
        """Whether a memcg went offline for it."""
        if self._own is None:
            return False
        directory = self._own / THROWN_AWAY
        try:
            directory.mkdir(exist_ok=True)
            directory.rmdir()
        except OSError as error:
            log.debug("The kernel was not nudged: %s.", error)
            return False
        return True

    def _cgroup(self) -> Path | None:
        """That of this process; None on v1, and where it is the root, as in a container."""
        if self._hierarchy.version != 2:
            return None
        lines = lines_of(self._proc / "self/cgroup")
        path = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/")
        return None if path == "/" else self._hierarchy.mount / path.lstrip("/")


def _is_delegated(directory: Path) -> bool:
    try:
        return os.getxattr(directory, "user.delegate") == b"1"
    except OSError:  # an older systemd, or none
        return False
