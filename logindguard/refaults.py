"""How much was read again soon after a reclaim: the sign of harm that no count of bytes shows.

What a reclaim took and somebody still wanted comes back from disk, and the kernel knows it again
(workingset_refault_file in /proc/vmstat, since 5.9). That is counted for the whole machine, whoever reads,
so on a busy one it says more than there is to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

WATCH_SEC = 60.0
_KEY = "workingset_refault_file "


class Refaults:
    """Counts pages within `watch_sec` after each reclaim; reclaims in that time begin no other watch."""

    def __init__(self, read: Callable[[], int], *, watch_sec: float = WATCH_SEC) -> None:
        self._read = read
        self._watch_sec = watch_sec
        self._task: asyncio.Task[None] | None = None
        self.total_pages = 0

    def reclaimed(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._watch(), name="refaults")
            self._task.add_done_callback(self._ended)

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _watch(self) -> None:
        before = await asyncio.to_thread(self._read)
        await asyncio.sleep(self._watch_sec)
        self.total_pages += max(0, await asyncio.to_thread(self._read) - before)

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
