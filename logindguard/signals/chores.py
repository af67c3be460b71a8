"""Short errands to the bus that a signal sets off: bounded in number and time, allowed to fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from .bus import BusError

log = logging.getLogger(__name__)

MAX_RUNNING = 32  # the system bus allows one connection 128 unanswered calls
MAX_WAITING = 1_024  # more than that is a flood, and old news when its turn comes
DEADLINE_SEC = 5.0


class Chores:
    """Runs errands in the background. One that fails is left out: the cgroup watch tells the end anyway."""

    def __init__(self, name: str, *, deadline_sec: float = DEADLINE_SEC) -> None:
        self._name = name
        self._deadline_sec = deadline_sec
        self._slots = asyncio.Semaphore(MAX_RUNNING)
        self._tasks: set[asyncio.Task[None]] = set()
        self._flood_told = False

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, errand: Callable[[], Awaitable[None]]) -> None:
        if len(self._tasks) >= MAX_RUNNING + MAX_WAITING:
            if not self._flood_told:
                self._flood_told = True
                log.info("Too much at once from %s: some teardowns will lack session details.", self._name)
            return
        task = asyncio.create_task(self._run(errand), name=self._name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _run(self, errand: Callable[[], Awaitable[None]]) -> None:
        async with self._slots:
            try:
                async with asyncio.timeout(self._deadline_sec):
                    await errand()
            except TimeoutError:
                log.debug("%s did not answer within %g s.", self._name, self._deadline_sec)
            except BusError as error:
                log.debug("%s: %s", self._name, error)
            except (TypeError, ValueError, KeyError, IndexError) as error:
                log.warning("%s answered in a form that is not understood: %r", self._name, error)
