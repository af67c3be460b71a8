"""What logind and systemd have in common as sources: a manager on the bus that signals, and may restart.

It need not be there: the bus passes on a match for a name that nobody owns, nothing here asks an
activatable name to be started, and whoever takes the name later is met then.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from ..model import Source
from .bus import BusError, SystemBus
from .chores import DEADLINE_SEC, Chores
from .confirm import InodeOf, confirm_ended
from .registry import Registry

Handler = Callable[[str, list[Any]], None]  # object path, body

ABSENT = "not on the bus"
UNANSWERED = "no answer yet"
MEET_AGAIN_SEC = 10.0  # a manager that is busy, or refuses for now

log = logging.getLogger(__name__)


class Manager(ABC):
    """Feeds `registry` with what one manager says; who it is, the class says.

    `silent` is why it does not tell, empty where it does; `changed` is called when that changes.
    """

    NAME: ClassVar[str]
    PATH: ClassVar[str]
    INTERFACE: ClassVar[str]
    SOURCE: ClassVar[Source]

    def __init__(
        self,
        bus: SystemBus,
        registry: Registry,
        inode_of: InodeOf,
        *,
        changed: Callable[[], None] = lambda: None,
        deadline_sec: float = DEADLINE_SEC,
    ) -> None:
        self._bus = bus
        self._registry = registry
        self._inode_of = inode_of
        self._changed = changed
        self._deadline_sec = deadline_sec
        self._chores = Chores(self.SOURCE, deadline_sec=deadline_sec)
        self._meeting: asyncio.Task[None] | None = None
        self.silent = ABSENT

    @abstractmethod
    def signals(self) -> tuple[tuple[str, str, Handler], ...]:
        """Member, signature and handler of each signal that is used."""

    @abstractmethod
    async def introduce(self) -> None:
        """What is to be asked or told at the start, and again when the manager was restarted."""

    def lost_sight(self) -> None:  # noqa: B027  # most remember nothing that can grow old
        """From now on, or for a while, what the manager says may not be heard."""

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
        self._owner_changed(await self._bus.track(self.NAME, self._owner_changed))

    def stop(self) -> None:
        self.lost_sight()
        self._chores.stop()
        if self._meeting is not None:
            self._meeting.cancel()
            self._meeting = None

    def _owner_changed(self, owner: str) -> None:
        self.lost_sight()
        if self._meeting is not None:
            self._meeting.cancel()
            self._meeting = None
        self._note(UNANSWERED if owner else ABSENT)
        if owner:  # after a restart too: what it said meanwhile was not heard
            self._meeting = asyncio.create_task(self._meet(), name=f"meeting {self.SOURCE}")

    async def _meet(self) -> None:
        """Introduces itself, again and again until that is answered."""
        while True:
            try:
                async with asyncio.timeout(self._deadline_sec):
                    await self.introduce()
            except TimeoutError:
                self._note(UNANSWERED)
            except BusError as error:
                self._note(f"refused ({error})")
            except (TypeError, ValueError, KeyError, IndexError) as error:
                log.warning("%s answered in a form that is not understood: %r", self.NAME, error)
                self._note("not understood")
            else:
                self._note("")
                return
            await asyncio.sleep(MEET_AGAIN_SEC)

    def _note(self, silent: str) -> None:
        if silent != self.silent:
            self.silent = silent
            self._changed()

    def _ended(self, unit: str) -> None:
        confirm_ended(self._registry, self._inode_of, unit, self.SOURCE)
