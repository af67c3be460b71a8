"""The cgroup tree itself as a source: directories that come and go.

It feeds the registry with inodes, which nobody else knows, and hears of every
teardown even with no bus at all. Only directories that can hold covered units
are watched: slices and user@.service, or everything below `roots` where these
are set. No control file is ever read here: an open one would hold up an rmdir.

Order of work, so that nothing is missed: a watch is added first, the directory
listed after it. What was born in between is seen twice, which the registry takes
lightly; the events of names that have been reused meanwhile are recognised by
looking at the inode again.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from ..kernel.cgroupfs import join, within
from ..kernel.inotify import (
    IN_CREATE,
    IN_DELETE,
    IN_IGNORED,
    IN_ISDIR,
    IN_ONLYDIR,
    IN_Q_OVERFLOW,
    Event,
    Inotify,
)
from ..model import Source
from .confirm import monotonic_usec
from .registry import Registry, is_delegated

log = logging.getLogger(__name__)

_DIRECTORIES_PER_TURN = 200  # of a walk, before the loop gets a turn
_RESCAN_PAUSE_SEC = 1.0  # a storm of events must not become a storm of walks
_TRUSTED_USEC = 3_600_000_000  # for so long, events that nothing is known to have lost


@dataclass(frozen=True, slots=True)
class _Watch:
    wd: int
    inode: int


class CgroupWatch:
    """Watches the hierarchy mounted at `mount`, confined to `roots` (cgroup paths; empty: all)."""

    def __init__(
        self,
        mount: Path,
        roots: tuple[str, ...],
        registry: Registry,
        *,
        max_watches: int = 16_384,
        clock: Callable[[], int] = monotonic_usec,
    ) -> None:
        self._mount = str(mount)
        self._roots = tuple(root.rstrip("/") or "/" for root in roots)
        self._registry = registry
        self._max_watches = max_watches
        self._clock = clock
        self._inotify: Inotify | None = None
        self._watches: dict[str, _Watch] = {}
        self._paths: dict[int, str] = {}  # by wd
        self._rescan: asyncio.Task[None] | None = None
        self._rescan_wanted = asyncio.Event()
        self._walk_lock = asyncio.Lock()
        self._limit_told = False
        self._partial = False  # there are directories that could not be watched
        self._walked_usec = 0

    @property
    def watches(self) -> int:
        return len(self._watches)

    async def start(self) -> None:
        """Watches and lists the tree; every covered cgroup that is there has appeared when it returns.

        Raises OSError when the kernel gives no inotify instance (EMFILE).
        """
        self._inotify = Inotify()
        asyncio.get_running_loop().add_reader(self._inotify.fd, self._readable)
        await self.rescan()
        self._rescan = asyncio.create_task(self._rescan_when_wanted(), name="cgroup watch rescan")

    def stop(self) -> None:
        if self._rescan is not None:
            self._rescan.cancel()
            self._rescan = None
        if self._inotify is not None:
            asyncio.get_running_loop().remove_reader(self._inotify.fd)
            self._inotify.close()
            self._inotify = None
        self._watches.clear()
        self._paths.clear()

    def inode_of(self, path: str) -> int | None:
        """The inode of the cgroup directory at `path` now, None when there is none."""
        try:
            status = os.lstat(self._mount + path)
        except OSError:  # ENOENT as a rule; a path that cannot be looked at is no cgroup either
            return None
        return status.st_ino if stat.S_ISDIR(status.st_mode) else None

    async def rescan(self) -> None:
        """Reconciles watches and registry with the tree; finds teardowns that no event told of."""
        async with self._walk_lock:
            await self._walk()

    def list_again(self) -> None:
        """Soon, since other units are covered now."""
        self._rescan_wanted.set()

    async def catch_up(self) -> None:
        """The same where events may not tell all: some directory is not watched, or it is long ago."""
        if self._partial or self._clock() - self._walked_usec >= _TRUSTED_USEC:
            await self.rescan()

    async def _walk(self) -> None:
        self._partial, self._walked_usec = False, self._clock()
        stale = set(self._watches)
        pending = ["/"]
        visited = 0
        while pending:
            path = pending.pop()
            stale.discard(path)
            for branch in self._visit(path):
                if branch is not None:
                    pending.append(branch)
                visited += 1
                if visited % _DIRECTORIES_PER_TURN == 0:
                    await asyncio.sleep(0)
        for path in stale:
            watch = self._watches.get(path)
            if watch and self.inode_of(path) != watch.inode:
                self._unwatch(path)
        for checked, (path, inode) in enumerate(self._registry.entries(), start=1):
            if self.inode_of(path) != inode and self._registry.inode(path) == inode:
                self._registry.ended(path, Source.CGROUP_WATCH, self._clock())
            if checked % _DIRECTORIES_PER_TURN == 0:
                await asyncio.sleep(0)

    async def _rescan_when_wanted(self) -> None:
        while True:
            await self._rescan_wanted.wait()
            self._rescan_wanted.clear()
            await self.rescan()
            await asyncio.sleep(_RESCAN_PAUSE_SEC)

    def _readable(self) -> None:
        if self._inotify is None:
            return
        for event in self._inotify.read():
            if event.mask & IN_Q_OVERFLOW:
                log.info("Events of the cgroup tree were lost; it is listed again.")
                self.list_again()
            elif event.mask & IN_IGNORED:
                self._forget(event.wd)
            elif event.mask & IN_ISDIR:
                self._handle(event)

    def _handle(self, event: Event) -> None:
        parent = self._paths.get(event.wd)
        if parent is None:  # the last words of a watch that was taken away
            return
        path = join(parent, event.name)
        inode = self.inode_of(path)
        if event.mask & IN_CREATE:
            self._born(path, inode)
        elif event.mask & IN_DELETE:
            self._removed(path, inode)

    def _born(self, path: str, inode: int | None) -> None:
        if inode is None:
            if self._in_scope(path):
                self._registry.missed(path, Source.CGROUP_WATCH, self._clock())
            return
        pending = [path] if self._enter(path, inode) else []
        while pending:
            pending += [branch for branch in self._visit(pending.pop()) if branch is not None]

    def _removed(self, path: str, inode: int | None) -> None:
        """`inode` is what stands at `path` now: events of an earlier namesake say nothing of it."""
        watch = self._watches.get(path)
        if watch and watch.inode != inode:
            self._unwatch(path)
        known = self._registry.inode(path)
        # An uncovered parent may go with children whose own events were lost: those end here as well.
        if inode is None or (known is not None and known != inode):
            self._registry.ended(path, Source.CGROUP_WATCH, self._clock())

    def _enter(self, path: str, inode: int) -> bool:
        """Tells the registry of a directory; whether it is one to look into."""
        if self._in_scope(path):
            self._registry.appeared(path, inode, self._clock())
        return self._is_branch(path)

    def _visit(self, path: str) -> Iterator[str | None]:
        """Watches one directory and enters its children; yields for each one, the path if it is a branch."""
        self._watch(path)
        try:
            with os.scandir(self._mount + path) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        continue
                    child = join(path, entry.name)
                    inode = self.inode_of(child) if self._matters(child) else None
                    yield child if inode is not None and self._enter(child, inode) else None
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV):  # else it is gone, as its parent will say
                self._partial = True
                log.warning("%s cannot be listed: %s.", self._mount + path, error.strerror)

    def _watch(self, path: str) -> None:
        if self._inotify is None:
            self._partial = True
            return
        # Users make slices below user@.service at will: half of the watches are not theirs.
        limit = self._max_watches // 2 if is_delegated(path) else self._max_watches
        if path not in self._watches and len(self._watches) >= limit:
            self._tell_limit(f"{limit} watches are in use")
            return
        try:
            wd = self._inotify.add(self._mount + path, IN_CREATE | IN_DELETE | IN_ONLYDIR)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                self._tell_limit("fs.inotify.max_user_watches is reached")
            elif error.errno not in (errno.ENOENT, errno.ENODEV):
                self._partial = True
                log.warning("%s cannot be watched: %s.", self._mount + path, error.strerror)
            return
        inode = self.inode_of(path)
        known = self._watches.get(path)
        if known and known.wd != wd:
            self._unwatch(path)
        self._paths[wd] = path
        self._watches[path] = _Watch(wd, inode or 0)
        if inode is None:  # gone again: on kernfs nothing else ends the watch
            self._unwatch(path)

    def _unwatch(self, path: str) -> None:
        watch = self._watches.pop(path, None)
        if watch is None or self._inotify is None:
            return
        self._paths.pop(watch.wd, None)
        try:
            self._inotify.remove(watch.wd)
        except OSError as error:
            if error.errno != errno.EINVAL:  # else the kernel was first
                raise

    def _forget(self, wd: int) -> None:
        path = self._paths.pop(wd, None)
        if path is not None:
            del self._watches[path]

    def _tell_limit(self, reason: str) -> None:
        self._partial = True
        if not self._limit_told:
            self._limit_told = True
            log.warning(
                "Not every cgroup directory is watched: %s. Teardowns in the others are left to the sweep.",
                reason,
            )

    def _in_scope(self, path: str) -> bool:
        """Whether teardowns at `path` are told: strictly below a root, as the parent is what is reclaimed."""
        return not self._roots or any(within(path, root) and path != root for root in self._roots)

    def _is_branch(self, path: str) -> bool:
        """Whether a directory is looked into and watched."""
        if not self._roots:
            name = path.rpartition("/")[2]
            return name.endswith(".slice") or fnmatchcase(name, "user@*.service")
        # A root may not be there yet: the way down to it is watched as well.
        return any(within(path, root) or within(root, path) for root in self._roots)

    def _matters(self, path: str) -> bool:
        return self._is_branch(path) or (
            self._in_scope(path) and self._registry.covers(path.rpartition("/")[2].removeprefix("_"))
        )
