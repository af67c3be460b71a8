"""What root calls, under a name that the bus lets only root send to: the hook, and logindguardctl of root."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ..signals.bus import SystemBus
from .api import manager
from .callers import Caller
from .methods import Methods
from .names import HOOK
from .polkit import Polkit
from .server import Server
from .service import Service
from .table import Interface, Method

ReclaimEnding = Callable[[Caller], Awaitable[str]]
"""Reclaims the cgroup that the caller is in; the Outcome. AccessDenied, NotEnding, NotCovered, Busy."""


class RootApi:
    """The Hook and the Manager on one connection, from `start` to `stop`; what is broadcast, Api tells.

    Not on the connection that all may call: any user can fill the queue that the bus keeps for that,
    and what comes then is refused by the bus, or is read a minute later.
    """

    def __init__(self, bus: SystemBus, service: Service, reclaim_ending: ReclaimEnding) -> None:
        async def answer(caller: Caller) -> list[Any]:
            return [await reclaim_ending(caller)]

        hook = Interface(HOOK, Method(name="ReclaimEnding", gives="outcome:s", handler=answer))
        self._polkit = Polkit(bus)
        table = manager(service, Methods(service, self._polkit).table())
        self._server = Server(bus, table, hook, name=HOOK)

    async def start(self) -> None:
        await self._server.start()

    def stop(self) -> None:
        self._server.stop()
        self._polkit.stop()
