"""What only the hook at the end of a session calls, under a name that the bus lets only root send to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ..signals.bus import SystemBus
from .callers import Caller
from .names import HOOK
from .server import Server
from .table import Interface, Method

ReclaimEnding = Callable[[Caller], Awaitable[str]]
"""Reclaims the cgroup that the caller is in; the Outcome. AccessDenied, NotEnding, NotCovered, Busy."""


class HookApi:
    """The Hook on one connection, from `start` to `stop`.

    Not on the one that tools call: any user can fill the queue that the bus keeps for that, and
    what comes then is refused by the bus, or is read a minute later.
    """

    def __init__(self, bus: SystemBus, reclaim_ending: ReclaimEnding) -> None:
        async def answer(caller: Caller) -> list[Any]:
            return [await reclaim_ending(caller)]

        ending = Method(name="ReclaimEnding", gives="outcome:s", handler=answer)
        self._server = Server(bus, Interface(HOOK, ending), name=HOOK)

    async def start(self) -> None:
        await self._server.start()

    def stop(self) -> None:
        self._server.stop()
