"""Who calls: the user and process behind a unique name, as the bus daemon knows them.

Hard facts (dbus-daemon 1.14, D-Bus specification):

- The daemon took user and process from the socket (SO_PEERCRED) when it was connected,
  so they are those of whoever connected it, and nothing that a message can claim.
- A unique name is never used again while the daemon runs: what is known of one stays
  true until NameOwnerChanged says that it is gone.
- The daemon handles what we send in order: where the match is asked for first, no end
  of a caller that could be identified goes unheard.
- It gives one connection 512 match rules.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..signals.bus import BusError, SystemBus
from .names import CallError, Error

MAX_KNOWN = 300
DEADLINE_SEC = 5.0

_DAEMON = "org.freedesktop.DBus"
_DAEMON_PATH = "/org/freedesktop/DBus"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    unique_name: str
    uid: int
    pid: int
    interactive: bool = False  # this call may ask a person for authorization
    bus: SystemBus | None = field(default=None, repr=False, compare=False)

    @property
    def is_root(self) -> bool:
        return self.uid == 0

    async def is_there(self) -> bool:
        """Whether it is still connected, so that `pid` was its process until now. Raises CallError."""
        assert self.bus is not None
        try:
            [has_owner] = await self.bus.call(
                _DAEMON, _DAEMON_PATH, _DAEMON, "NameHasOwner", "s", [self.unique_name]
            )
        except BusError as error:
            raise CallError(Error.FAILED, "The bus does not answer.") from error
        return bool(has_owner)


class CallerGone(Exception):
    """It left the bus: nobody waits for the reply."""


class Callers:
    """Identifies callers once each; `on_gone` hears of those that left, `in_use` keeps them known."""

    def __init__(
        self, bus: SystemBus, *, on_gone: Callable[[str], None], in_use: Callable[[str], bool]
    ) -> None:
        self._bus = bus
        self._on_gone = on_gone
        self._in_use = in_use
        self._known: dict[str, asyncio.Task[Caller]] = {}  # oldest first
        self._forgetting: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._known)

    async def identify(self, unique_name: str) -> Caller:
        """Raises CallerGone, or CallError where the bus does not say who it is."""
        task = self._known.get(unique_name)
        if task is None:
            self._make_room()
            task = self._known[unique_name] = asyncio.create_task(self._ask(unique_name), name="identify")
        try:
            return await asyncio.shield(task)  # others may wait for the same answer
        except BusError as error:
            self._forget(unique_name)
            if error.name == "org.freedesktop.DBus.Error.NameHasNoOwner":
                raise CallerGone(unique_name) from error
            raise CallError(Error.ACCESS_DENIED, "The bus does not tell who calls.") from error

    def owner_changed(self, name: str, new_owner: str) -> None:
        """NameOwnerChanged, from the daemon itself."""
        if not new_owner and name in self._known:
            self._forget(name)
            self._on_gone(name)

    def stop(self) -> None:
        for task in [*self._known.values(), *self._forgetting]:
            task.cancel()
        self._known.clear()

    async def _ask(self, unique_name: str) -> Caller:
        # Sent one after the other and awaited together: one round trip.
        _, [told] = await asyncio.gather(
            self._bus.add_match(_rule(unique_name)),
            self._bus.call(
                _DAEMON,
                _DAEMON_PATH,
                _DAEMON,
                "GetConnectionCredentials",
                "s",
                [unique_name],
                timeout_sec=DEADLINE_SEC,
            ),
        )
        try:
            uid, pid = told["UnixUserID"], told["ProcessID"]
        except KeyError as error:
            raise BusError("org.freedesktop.DBus.Error.Failed", f"no {error.args[0]}") from error
        return Caller(unique_name=unique_name, uid=uid, pid=pid, bus=self._bus)

    def _make_room(self) -> None:
        for name in list(self._known):
            if len(self._known) < MAX_KNOWN:
                return
            if not self._in_use(name):
                self._forget(name)

    def _forget(self, unique_name: str) -> None:
        task = self._known.pop(unique_name, None)
        if task is None:
            return
        task.cancel()
        removal = asyncio.create_task(self._remove_match(unique_name), name="forget")
        self._forgetting.add(removal)
        removal.add_done_callback(self._forgetting.discard)

    async def _remove_match(self, unique_name: str) -> None:
        with contextlib.suppress(BusError):  # it was never added, or the bus is gone
            await self._bus.remove_match(_rule(unique_name))


def _rule(unique_name: str) -> str:
    return (
        f"type='signal',sender='{_DAEMON}',path='{_DAEMON_PATH}',interface='{_DAEMON}',"
        f"member='NameOwnerChanged',arg0='{unique_name}'"
    )


def owner_change(message: Any) -> tuple[str, str] | None:
    """Name and new owner, where the message is the daemon's NameOwnerChanged."""
    if message.sender == _DAEMON and message.member == "NameOwnerChanged" and message.signature == "sss":
        return message.body[0], message.body[2]
    return None
