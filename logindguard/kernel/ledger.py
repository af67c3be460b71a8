"""What is changed for a short while, where it outlives a process that is killed meanwhile.

Hard facts:

- It is written by rename, so it is whole, and one flock is held for as long as anything is
  changed, which the kernel drops with the process. Whoever takes that lock and finds entries
  knows their owner is dead.
- It is a file that only root can reach, not an xattr on the cgroup: the owner of a delegated
  cgroup could forge one of those.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from .cgroupfs import is_cgroup_path

FILES = ("memory.min", "memory.swap.max", "memory.swappiness")  # the last two by noswap.py
_LOCK_POLL_SEC = 0.005


class LedgerError(Exception):
    """The ledger cannot be locked, read or written; nothing was shielded."""


class LedgerBusy(LedgerError):
    """Somebody else has it, who lives: later, then."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One changed memory.min, or what noswap.py changes, whose number need not be bytes; None is "max"."""

    inode: int
    path: str
    old_bytes: int | None
    ours_bytes: int | None
    file: str = "memory.min"

    def __post_init__(self) -> None:
        """Raises ValueError for what no window writes: what was read back may be anybody's edit."""
        sizes = (self.old_bytes, self.ours_bytes)
        if not (type(self.inode) is int and all(size is None or type(size) is int for size in sizes)):
            raise ValueError("an inode and sizes are whole numbers")
        if not is_cgroup_path(self.path) or any(size is not None and size < 0 for size in sizes):
            raise ValueError("not a cgroup, or a size below 0")
        if self.file not in FILES:
            raise ValueError(f"{self.file!s:.40} is no file that the guard changes")


class Ledger:
    """Changed values on disk, and the lock that says whether their owner lives."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "ledger"
        self._threads = threading.Lock()  # flock is per open file; this is fairer between our workers

    def prepare(self) -> None:
        """Make the directory, or refuse one that others can write to."""
        try:
            self.directory.mkdir(mode=0o700, exist_ok=True)
            status = self.directory.lstat()
        except OSError as error:
            raise LedgerError(f"{self.directory}: {error.strerror}") from error
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise LedgerError(f"{self.directory}: must belong to this user and be writable by nobody else")

    @contextmanager
    def locked(self, timeout_sec: float = 5.0) -> Iterator[None]:
        """Hold the lock. Raises LedgerBusy when it cannot be had in time."""
        if not self._threads.acquire(timeout=timeout_sec):
            raise LedgerBusy("another window is open")
        try:
            fd = self._flock(time.monotonic() + timeout_sec)
            try:
                yield
            finally:
                os.close(fd)
        finally:
            self._threads.release()

    def _flock(self, deadline: float) -> int:
        try:
            fd = os.open(
                self.directory / "lock", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
        except OSError as error:
            raise LedgerError(f"{self.directory}/lock: {error.strerror}") from error
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return fd
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(fd)
                    raise LedgerBusy("another process holds the lock") from None
                time.sleep(_LOCK_POLL_SEC)

    def entries(self) -> list[Entry]:
        """Raise LedgerError on a ledger that is not one; it is written whole, so that is nobody's crash."""
        try:
            return [Entry(**entry) for entry in json.loads(self.path.read_text())]
        except FileNotFoundError:
            return []
        except TypeError as error:
            raise LedgerError(f"{self.path}: it is no list of what was changed where") from error
        except (OSError, ValueError, RecursionError) as error:
            raise LedgerError(f"{self.path}: {error}") from error

    def write(self, entries: list[Entry]) -> None:
        try:
            if not entries:
                self.path.unlink(missing_ok=True)
                return
            new = self.directory / "ledger.new"
            new.write_text(json.dumps([asdict(entry) for entry in entries]))
            new.replace(self.path)
        except OSError as error:
            raise LedgerError(f"{self.path}: {error.strerror}") from error
