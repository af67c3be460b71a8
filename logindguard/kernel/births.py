"""Hears of cgroups that are born beside a target while a write to it is in the kernel.

Hard facts (mm/vmscan.c, inotify(7); measured on 6.1 and 6.12):

- A cgroup born during a write has no shield. A request for more than there is goes down to
  priority 0, where the kernel scans whole lists, so it takes pages of such a cgroup too.
- The kernel looks at memory.min anew each time it comes by a memcg, in the same write too. So
  a shield that is raised meanwhile, from another thread, holds from then on.
- systemd makes a cgroup, writes its own values there, memory.min too, and only then moves a
  process into it, which has read nothing yet. So there is some time to cover it, but not once for all.
- Five losses in a minute of pods that were replaced 10 times a second (6.12, TCG) came each from one of
  the last writes of a window, for 60 to 256 KiB, which took 26 to 58 ms on its way to the low priorities.
  So where cgroups are born now, such a write can wait. Not all losses are known to come from there.
- A thread inherits its creator's scheduling. This one is made by the main thread, since a
  child of the idle worker would wait for as long as that does.
"""

from __future__ import annotations

import logging
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from .cgroupfs import Cgroup, KernelError
from .inotify import IN_CREATE, IN_ISDIR, IN_ONLYDIR, Event, Inotify
from .ledger import LedgerError

AGAIN_MSEC = 5
LATELY_SEC = 0.25  # after a birth the next one may be near

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Parent:
    wd: int
    cover: Callable[[str], None] | None = None  # while a block is open
    born_sec: float = float("-inf")  # the last birth that was heard of

    def lately(self) -> bool:
        """Whether one was born there just now."""
        return time.monotonic() - self.born_sec < LATELY_SEC


class Births:
    """A thread and an inotify instance, for as long as the process lives."""

    def __init__(self) -> None:
        """Raises OSError: EMFILE above fs.inotify.max_user_instances. Make it in the main thread."""
        self._inotify = Inotify()
        self._lock = threading.Lock()
        self._parents: dict[int, _Parent] = {}  # by wd
        threading.Thread(target=self._hear, name="births", daemon=True).start()

    @contextmanager
    def told(self, parent: Cgroup, cover: Callable[[str], None]) -> Iterator[Callable[[], bool] | None]:
        """Calls `cover` with the name of each child born below `parent` in the block, in another thread.

        At once, then every 5 ms, and not any more once the block has ended. Yields what says whether one
        was born there within LATELY_SEC, before the block too where one was open until then; None where
        the kernel gives no watch, and nothing is told.
        """
        with self._lock:
            try:
                # The very directory: its path may be another one's by now.
                wd = self._inotify.add(f"/proc/self/fd/{parent.fd}", IN_CREATE | IN_ONLYDIR)
            except OSError as error:  # ENOSPC: fs.inotify.max_user_watches
                log.debug("%s: what is born below it during a write is not covered: %s.", parent.path, error)
                heard = None
            else:
                heard = self._parents.setdefault(wd, _Parent(wd))
                heard.cover = cover
        if heard is None:
            yield None
            return
        try:
            yield heard.lately
        finally:
            with self._lock:
                heard.cover = None
                self._let_go(heard)

    def _let_go(self, parent: _Parent) -> None:
        """Ends a watch that nobody needs; one with a birth lately is kept for the next block."""
        if parent.cover is None and not parent.lately():
            del self._parents[parent.wd]
            with suppress(OSError):  # the kernel has ended it, with the directory
                self._inotify.remove(parent.wd)

    def _hear(self) -> None:
        waiting = select.poll()
        waiting.register(self._inotify.fd, select.POLLIN)
        born: list[tuple[int, str]] = []  # wd and name, until the block ends
        while True:
            waiting.poll(AGAIN_MSEC if born else self._patience_msec())
            born += [(event.wd, event.name) for event in self._inotify.read() if self._note(event)]
            born = [(wd, name) for wd, name in born if self._cover(wd, name)]

    def _patience_msec(self) -> float | None:
        """Until it is to look after watches that were kept."""
        with self._lock:
            for parent in [*self._parents.values()]:
                self._let_go(parent)
            kept = any(parent.lately() for parent in self._parents.values())
        return LATELY_SEC * 1000 if kept else None

    def _note(self, event: Event) -> bool:
        """Whether it tells of a birth."""
        if not event.mask & IN_ISDIR:
            return False
        with self._lock:
            if parent := self._parents.get(event.wd):
                parent.born_sec = time.monotonic()
        return True

    def _cover(self, wd: int, name: str) -> bool:
        """Whether it is to be looked at again."""
        with self._lock:
            parent = self._parents.get(wd)
            if parent is None or parent.cover is None:
                return False
            try:
                parent.cover(name)
            except (KernelError, LedgerError) as error:
                log.debug("Born during a write, and not covered yet: %s.", error)
            return True
