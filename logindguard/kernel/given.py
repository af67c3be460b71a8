"""What ending cgroups gave to reclaims of their own, so that no live cgroup is said to have lost it.

Hard facts (mm/memcontrol.c):

- `pgsteal` counts a whole subtree. So the reclaim of an ending scope, on one thread,
  shows in every ancestor of it, also to a window that looks at one from another thread.
- memory.stat lags: up to 64 updates a CPU wait for the flush of every two seconds. So
  some pages of a reclaim that is over may show only in the next window.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

LAG_SEC = 3.0  # of memory.stat: flushed every 2 s, by a worker that may come late
LAG_PAGES = 512  # most that waits so
KEEP_SEC = 60.0  # windows are shorter; one that is not tells more as lost than was


@dataclass(slots=True)
class Gift:
    """What one ending cgroup gives: at most what it held, until it is known."""

    path: str
    pages: int
    ended_sec: float | None = None  # not over yet

    def shows_since(self, started_sec: float) -> int:
        """Pages of it that a window which began then may see."""
        if self.ended_sec is None or self.ended_sec >= started_sec:
            return self.pages
        return min(self.pages, LAG_PAGES) if self.ended_sec >= started_sec - LAG_SEC else 0


class Given:
    """Gifts of late, given on one thread and asked for on another."""

    def __init__(self) -> None:
        self._gifts: list[Gift] = []
        self._lock = threading.Lock()

    @contextmanager
    def giving(self, path: str, most_pages: int) -> Iterator[Gift]:
        """Around a reclaim of the cgroup itself; set the gift's pages to what they came to."""
        gift = Gift(path, most_pages)
        oldest_sec = time.monotonic() - KEEP_SEC
        with self._lock:
            self._gifts = [each for each in self._gifts if (each.ended_sec or oldest_sec) >= oldest_sec]
            self._gifts.append(gift)
        try:
            yield gift
        finally:
            gift.ended_sec = time.monotonic()

    def pages(self, path: str, started_sec: float) -> int:
        """Most of the subtree at `path` that a window which began then may see go as gifts."""
        below = path.rstrip("/") + "/"
        with self._lock:
            return sum(
                gift.shows_since(started_sec)
                for gift in self._gifts
                if gift.path == path or gift.path.startswith(below)
            )
