"""The way to logind and systemd: a system bus that is there or not, and that may be lost and found again.

Nothing here ends the program. The cgroup tree tells of every teardown by itself; what the bus adds
are the details of sessions, and stop jobs before they have ended anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..model import SOURCE_WORDS, Source
from .bus import BusError, SystemBus
from .confirm import InodeOf
from .login1 import Login1
from .manager import Manager
from .part import RETRY_SEC, Make, Part
from .registry import Registry
from .systemd1 import Systemd1

# A manager that is met, or takes its name anew after a restart, is absent for a moment only.
SETTLE_SEC = 1.0

Tell = Callable[[tuple[Source, ...], str], None]
"""Takes the sources that tell of teardowns now, and why the others do not; empty where all do."""


class Listener:
    """Listens at the bus for as long as there is one; `tell` hears who tells at first, and each change.

    `serve` makes what else is to work on each new connection.
    """

    def __init__(
        self,
        address: str | None,
        registry: Registry,
        inode_of: InodeOf,
        *,
        tell: Tell,
        serve: Make | None = None,
        retry_sec: float = RETRY_SEC,
        settle_sec: float = SETTLE_SEC,
    ) -> None:
        self._address = address
        self._registry = registry
        self._inode_of = inode_of
        self._tell = tell
        self._serve = serve
        self._retry_sec = retry_sec
        self._settle_sec = settle_sec
        self._managers: tuple[Manager, ...] = ()
        self._no_bus = ""
        self._told: tuple[tuple[Source, ...], str] | None = None
        self._settling: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            while True:
                try:
                    bus = await SystemBus.connect(self._address)
                except BusError as error:
                    self._lost(f"no system bus ({error.message or error})")
                else:
                    self._lost(await self._listen(bus))
                await asyncio.sleep(self._retry_sec)
        finally:
            if self._settling is not None:
                self._settling.cancel()

    async def _listen(self, bus: SystemBus) -> str:
        """Listens until the connection is gone, or does not work; returns the reason."""
        parts: list[Part] = []
        managers: list[Manager] = []
        try:
            if self._serve is not None:
                parts.append(self._serve(bus))
            for kind in (Login1, Systemd1):
                managers.append(kind(bus, self._registry, self._inode_of, changed=self._changed))
            for part in (*managers, *parts):
                await part.start()
            self._managers = tuple(managers)
            self._changed()
            await bus.wait_disconnected()
        except BusError as error:
            return f"the system bus does not answer ({error})"
        finally:
            self._managers = ()
            for part in (*managers, *parts):
                part.stop()
            bus.close()
        return "the connection to the system bus was lost"

    def _lost(self, why: str) -> None:
        self._no_bus = why
        self._changed()

    def _state(self) -> tuple[tuple[Source, ...], str]:
        telling = [manager.SOURCE for manager in self._managers if not manager.silent]
        silent: dict[str, list[str]] = {}
        for manager in self._managers:
            if manager.silent:
                silent.setdefault(manager.silent, []).append(SOURCE_WORDS[manager.SOURCE])
        reasons = [f"{why}: {' and '.join(names)}" for why, names in silent.items()]
        return (*telling, Source.CGROUP_WATCH), "; ".join(reasons) if self._managers else self._no_bus

    def _changed(self) -> None:
        """Good news is told at once, bad news when it lasts."""
        if not self._state()[1]:
            self._settled()
        elif self._settling is None:
            self._settling = asyncio.get_running_loop().call_later(self._settle_sec, self._settled)

    def _settled(self) -> None:
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        state = self._state()
        if state != self._told and (self._managers or self._no_bus):
            self._told = state
            self._tell(*state)
