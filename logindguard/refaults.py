"""How much was read again soon after a reclaim: the sign of harm that no count of bytes shows.

What a reclaim took and somebody still wanted comes back from disk, and the kernel knows it again
(workingset_refault_file in /proc/vmstat, since 5.9). That is counted for the whole machine, whoever reads,
so on a busy one it says more than there is to say. So a sweep is only held back where the machine read
again much more than it did before, after nothing but sweeps: then it took what is still in use, and the
longer it waits, the more of that has found a live owner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .kernel.cgroupfs import PAGE_BYTES
from .model import ReclaimRecord, Way
from .reclaimer import now_usec
from .text import size, span

WATCH_SEC = 60.0
HARM_BYTES = 16 << 20  # less is read again by chance
HARM_PART = 2  # of what was reclaimed, this part
FIRST_BACKOFF_USEC = 600_000_000
MAX_BACKOFF_USEC = 3_600_000_000
_KEY = "workingset_refault_file "


@dataclass(slots=True)
class Backoff:
    """Pure: what the sweep took and the machine read again decides how long it waits."""

    reason: str = ""
    until_usec: int = 0
    _next_usec: int = FIRST_BACKOFF_USEC

    def judge(self, freed_bytes: int, again_bytes: int, now_usec: int) -> bool:
        """Whether so much was read again, beyond what always is, that the sweep waits; longer each time."""
        if again_bytes < HARM_BYTES or again_bytes * HARM_PART < freed_bytes:
            self._next_usec = FIRST_BACKOFF_USEC
            return False
        self.reason = (
            f"{size(again_bytes)} of page cache was read again soon after a sweep released"
            f" {size(freed_bytes)}, so it waits {span(self._next_usec)}"
        )
        self.until_usec = now_usec + self._next_usec
        self._next_usec = min(2 * self._next_usec, MAX_BACKOFF_USEC)
        return True

    def held(self, now_usec: int) -> str:
        """Why no sweep may go on now; empty where it may."""
        return self.reason if now_usec < self.until_usec else ""


class Refaults:
    """Counts pages within `watch_sec` after each reclaim; reclaims in that time begin no other watch."""

    def __init__(self, read: Callable[[], int], *, watch_sec: float = WATCH_SEC) -> None:
        self._read = read
        self._watch_sec = watch_sec
        self._task: asyncio.Task[None] | None = None
        self._swept_bytes = 0  # since the watch began
        self._others = False  # a logout was served as well: what is read again may be that one's
        self._before: tuple[int, int] | None = None  # when the last watch ended, and the count then
        self._stopped = False
        self.total_pages = 0
        self.backoff = Backoff()

    def reclaimed(self, record: ReclaimRecord) -> None:
        if self._stopped or not record.freed_bytes:
            return
        if self._task is None:
            self._swept_bytes, self._others = 0, False
            self._task = asyncio.create_task(self._watch(), name="refaults")
            self._task.add_done_callback(self._ended)
        if record.way is Way.SWEEP:
            self._swept_bytes += record.freed_bytes
        else:
            self._others = True

    def stop(self) -> None:
        self._stopped = True
        if self._task is not None:
            self._task.cancel()

    async def _watch(self) -> None:
        began_usec, before = now_usec(), await asyncio.to_thread(self._read)
        usual = self._usual_pages(began_usec, before)
        await asyncio.sleep(self._watch_sec)
        after = await asyncio.to_thread(self._read)
        pages = max(0, after - before)
        self.total_pages += pages
        self._before = now_usec(), after
        if usual is not None and self._swept_bytes and not self._others:
            again_bytes = max(0, pages - usual) * PAGE_BYTES
            self.backoff.judge(self._swept_bytes, again_bytes, now_usec())

    def _usual_pages(self, now_usec: int, count: int) -> int | None:
        """What the machine read again before, in as long as a watch; None where that is not known."""
        if self._before is None or (passed_usec := now_usec - self._before[0]) < self._watch_sec * 1e6:
            return None
        return int((count - self._before[1]) * self._watch_sec * 1e6 / passed_usec)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled():
            task.exception()  # a kernel without the counter: 0 is all there is to say


def refaulted_pages(proc: Path = Path("/proc")) -> int:
    """Since the machine was started. Raises OSError, and ValueError where the kernel does not count them."""
    for line in (proc / "vmstat").read_text().splitlines():
        if line.startswith(_KEY):
            return int(line.removeprefix(_KEY))
    raise ValueError("no workingset_refault_file in /proc/vmstat")
