"""Files whose page cache is charged to a cgroup, or to what hangs dying under it, largest first.

Hard facts (open(2), proc_pid_fd(5)):

- O_NOATIME leaves the access time alone.
- To open a device may do things, and whose directory it is may put a link to one in a file's place just
  then. O_PATH opens nothing: what it found is looked at, and that very file opened by /proc/self/fd.
- A file that was deleted and is still open keeps its page cache. /proc/PID/fd and /proc/PID/map_files
  lead to it, by a link that ends in " (deleted)"; root may open it there.
- Other mounts below a directory are another device, and are left out: what is there may be a network.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from .page_owner import PageOwners

MAX_SEC = 60.0
MAX_LISTED = 10_000
_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC
_DELETED = " (deleted)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargedFile:
    path: str
    charged_bytes: int
    cached_bytes: int  # whoever is charged for it
    pid: int | None = None  # of a process that has it open, where it was deleted


@dataclass(slots=True)
class Search:
    """How far a search is; at its end what it found."""

    files: int = 0  # looked at
    cached_bytes: int = 0  # in all of them
    charged_bytes: int = 0
    unreadable: int = 0
    complete: bool = True
    found: list[ChargedFile] = field(default_factory=list)


def find(
    directories: Sequence[Path],
    inode: int,
    *,
    owners: PageOwners,
    proc: Path = Path("/proc"),
    max_sec: float = MAX_SEC,
    progress: Callable[[Search], None] = lambda search: None,
    should_stop: Callable[[], bool] = lambda: False,  # asked often
) -> Search:
    """Looks at regular files below the directories, and at deleted ones of their devices.

    What takes longer than `max_sec` is told incomplete. Raises NoPageOwners, and OSError for a directory
    that cannot be read.
    """
    search = Search()
    deadline = time.monotonic() + max_sec

    def over() -> bool:
        return should_stop() or time.monotonic() >= deadline

    for directory in directories:
        os.scandir(directory).close()
    devices = {directory.stat().st_dev for directory in directories}
    seen: set[tuple[int, int]] = set()
    for path, shown, pid in _candidates(directories, devices, proc):
        _look(path, shown, pid, inode, owners, search, seen, over)
        if over():
            search.complete = False
            break
        progress(search)
    search.found.sort(key=lambda each: (-each.charged_bytes, each.path))
    del search.found[MAX_LISTED:]
    return search


def _look(
    path: str,
    shown: str,
    pid: int | None,
    inode: int,
    owners: PageOwners,
    search: Search,
    seen: set[tuple[int, int]],
    over: Callable[[], bool],
) -> None:
    try:
        fd = _open_file(path, follow=pid is not None)
    except OSError:
        search.unreadable += 1
        return
    if fd is None:
        return
    try:
        status = os.fstat(fd)
        identity = (status.st_dev, status.st_ino)
        if identity in seen:
            return
        seen.add(identity)
        search.files += 1
        cached_bytes, charged_bytes = owners.charged(fd, status.st_size, inode, over)
    except OSError:  # a file that cannot be mapped
        search.unreadable += 1
        return
    finally:
        os.close(fd)
    search.cached_bytes += cached_bytes
    search.charged_bytes += charged_bytes
    if charged_bytes:
        search.found.append(
            ChargedFile(path=shown, charged_bytes=charged_bytes, cached_bytes=cached_bytes, pid=pid)
        )


def _open_file(path: str, *, follow: bool) -> int | None:
    """A descriptor to read from; None where it is no regular file."""
    place = os.open(path, os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    try:
        return os.open(f"/proc/self/fd/{place}", _OPEN) if stat.S_ISREG(os.fstat(place).st_mode) else None
    finally:
        os.close(place)


def _candidates(
    directories: Sequence[Path], devices: set[int], proc: Path
) -> Iterator[tuple[str, str, int | None]]:
    """What to open, what to call it, and by whom a deleted one is open. Deleted ones first: they are few."""
    yield from _deleted(devices, proc)
    for directory in directories:
        yield from ((path, path, None) for path in _regular(os.fspath(directory), devices))


def _regular(directory: str, devices: set[int]) -> Iterator[str]:
    above = [directory]
    while above:
        try:
            with os.scandir(above.pop()) as entries:
                below = sorted(entries, key=lambda entry: entry.name)
        except OSError:  # removed meanwhile, or not for us
            continue
        for entry in below:
            with suppress(OSError):
                if entry.is_file(follow_symlinks=False):
                    yield entry.path
                elif entry.is_dir(follow_symlinks=False) and entry.stat().st_dev in devices:
                    above.append(entry.path)


def _deleted(devices: set[int], proc: Path) -> Iterator[tuple[str, str, int | None]]:
    for process in proc.iterdir():
        if not process.name.isdecimal():
            continue
        for place in ("fd", "map_files"):
            with suppress(OSError):  # it has ended
                for link in (process / place).iterdir():
                    with suppress(OSError):
                        target = os.fspath(link.readlink())
                        if target.endswith(_DELETED) and link.stat().st_dev in devices:
                            yield os.fspath(link), target.removesuffix(_DELETED), int(process.name)
