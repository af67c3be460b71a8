"""What somebody asked to be swept now."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from .kernel.cgroupfs import KernelError
from .model import ReclaimRecord


@dataclass(slots=True, kw_only=True, eq=False)
class Demand:
    """One of them; `book` gets each record."""

    wants: Callable[[str], bool]  # by the path of a live parent
    book: Callable[[ReclaimRecord], None]
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def canceled(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.done.cancelled()


class Demands:
    """In the order in which they came."""

    def __init__(self) -> None:
        self._waiting: deque[Demand] = deque()

    async def wait_for(self, demand: Demand) -> None:
        """Returns when it was served. Raises what serving it raised; cancel it to stop."""
        self._waiting.append(demand)
        try:
            await demand.done
        finally:
            with suppress(ValueError):  # its turn had come
                self._waiting.remove(demand)

    async def serve(self, server: Callable[[Demand], Awaitable[None]]) -> None:
        """All that wait, also those that come meanwhile."""
        while self._waiting:
            demand = self._waiting.popleft()
            try:
                await server(demand)
            except (KernelError, OSError) as error:
                if not demand.canceled:
                    demand.done.set_exception(error)
            except asyncio.CancelledError:  # the sweep ends, and what was asked for is not done
                demand.done.cancel()
                raise
            else:
                if not demand.canceled:
                    demand.done.set_result(None)
