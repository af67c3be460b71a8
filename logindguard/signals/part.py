"""What works on one connection to the bus, and a connection that it has for itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol

from .bus import BusError, SystemBus

RETRY_SEC = 10.0


class Part(Protocol):
    """What works on one connection; whatever keeps `start` from its end ends the connection."""

    async def start(self) -> None: ...

    def stop(self) -> None: ...


Make = Callable[[SystemBus], Part]


async def keep_working(address: str | None, make: Make, *, retry_sec: float = RETRY_SEC) -> None:
    """Has what `make` makes work on a connection of its own while there is a bus, until cancelled."""
    while True:
        with contextlib.suppress(BusError):  # the Listener tells of a bus that is not there
            await _work(await SystemBus.connect(address), make)
        await asyncio.sleep(retry_sec)


async def _work(bus: SystemBus, make: Make) -> None:
    part = make(bus)
    try:
        await part.start()
        await bus.wait_disconnected()
    finally:
        part.stop()
        bus.close()
