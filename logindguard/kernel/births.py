"""Hears of cgroups that are born beside a target while a write to it is in the kernel.

Hard facts (mm/vmscan.c, inotify(7); measured on 6.1 and 6.12):

- A cgroup born during a write has no shield. A request for more than there is goes down to
  priority 0, where the kernel scans whole lists, so it takes pages of such a cgroup too.
- The kernel looks at memory.min anew each time it comes by a memcg, in the same write too. So
  a shield that is raised meanwhile, from another thread, holds from then on.
- systemd makes a cgroup, writes its own values there, memory.min too, and only then moves a
  process into it, which has read nothing yet. So there is some time to cover it, but not once for all.
- A thread inherits its creator's scheduling. This one is made by the main thread, since a
  child of the idle worker would wait for as long as that does.
"""

from __future__ import annotations

import logging
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from .cgroupfs import Cgroup, KernelError
from .inotify import IN_CREATE, IN_ISDIR, IN_ONLYDIR, Inotify
from .ledger import LedgerError

AGAIN_MSEC = 5

log = logging.getLogger(__name__)


class Births:
    """A thread and an inotify instance, for as long as the process lives."""

    def __init__(self) -> None:
        """Raises OSError: EMFILE above fs.inotify.max_user_instances. Make it in the main thread."""
        self._inotify = Inotify()
        self._lock = threading.Lock()
        self._covers: dict[int, Callable[[str], None]] = {}  # by wd
        threading.Thread(target=self._hear, name="births", daemon=True).start()

    @contextmanager
    def told(self, parent: Cgroup, cover: Callable[[str], None]) -> Iterator[bool]:
        """Calls `cover` with the name of each child born below `parent` in the block, in another thread.

        At once, then every 5 ms, and not any more once the block has ended. Yields whether the kernel
        gives a watch; else it is told of none.
        """
        try:
            # The very directory: its path may be another one's by now.
            wd = self._inotify.add(f"/proc/self/fd/{parent.fd}", IN_CREATE | IN_ONLYDIR)
        except OSError as error:  # ENOSPC: fs.inotify.max_user_watches
            log.debug("%s: what is born below it during a write is not covered: %s.", parent.path, error)
            yield False
            return
        with self._lock:
            self._covers[wd] = cover
        try:
            yield True
        finally:
            with self._lock:
                del self._covers[wd]
            with suppress(OSError):  # the kernel has ended it, with the directory
                self._inotify.remove(wd)

    def _hear(self) -> None:
        waiting = select.poll()
        waiting.register(self._inotify.fd, select.POLLIN)
        born: list[tuple[int, str]] = []  # wd and name, until the block ends
        while True:
            waiting.poll(AGAIN_MSEC if born else None)
            born += [(event.wd, event.name) for event in self._inotify.read() if event.mask & IN_ISDIR]
            born = [(wd, name) for wd, name in born if self._cover(wd, name)]

    def _cover(self, wd: int, name: str) -> bool:
        """Whether it is to be looked at again."""
        with self._lock:
            cover = self._covers.get(wd)
            if cover is None:
                return False
            try:
                cover(name)
            except (KernelError, LedgerError) as error:
                log.debug("Born during a write, and not covered yet: %s.", error)
            return True
