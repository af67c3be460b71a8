"""What logind and systemd have in common as sources: a manager on the bus that signals, and may restart."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from ..model import Source
from .bus import SystemBus
from .chores import DEADLINE_SEC, Chores
from .confirm import InodeOf, confirm_ended
from .registry import Registry

Handler = Callable[[str, list[Any]], None]  # object path, body


class Manager(ABC):
    """Feeds `registry` with what one manager says; who it is, the class says."""

    NAME: ClassVar[str]
    PATH: ClassVar[str]
    INTERFACE: ClassVar[str]
    SOURCE: ClassVar[Source]

    def __init__(
        self, bus: SystemBus, registry: Registry, inode_of: InodeOf, *, deadline_sec: float = DEADLINE_SEC
    ) -> None:
        self._bus = bus
        self._registry = registry
        self._inode_of = inode_of
        self._chores = Chores(self.SOURCE, deadline_sec=deadline_sec)

    @abstractmethod
    def signals(self) -> tuple[tuple[str, str, Handler], ...]:
        """Member, signature and handler of each signal that is used."""

    @abstractmethod
    async def introduce(self) -> None:
        """What is to be asked or told at the start, and again when the manager was restarted."""

    async def start(self) -> None:
        """Listens, then introduces itself; BusError when the bus refuses the former."""
        for member, signature, handler in self.signals():
            await self._bus.on_signal(
                sender=self.NAME,
                interface=self.INTERFACE,
                member=member,
                path=self.PATH,
                signature=signature,
                handler=handler,
            )
        if await self._bus.track(self.NAME, self._owner_changed):
            self._chores.start(self.introduce)

    def stop(self) -> None:
        self._chores.stop()

    def _owner_changed(self, owner: str) -> None:
        if owner:  # it was restarted: what it said meanwhile was not heard
            self._chores.start(self.introduce)

    def _ended(self, unit: str) -> None:
        confirm_ended(self._registry, self._inode_of, unit, self.SOURCE)
