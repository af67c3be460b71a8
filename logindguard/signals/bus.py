"""The system bus: calls with deadlines, and signals only from whom they claim to be.

Hard facts (dbus-daemon 1.14):

- A match rule with sender= is checked by the daemon only for broadcasts. Any
  local user can send a signal straight to our unique name, whatever we match:
  so each signal's sender is compared with the current owner of the well-known
  name. Owner changes and signals come in one order, the daemon's.
- Replies cannot be forged like that: on the system bus the daemon passes only
  those that were asked for, and not more than 128 unanswered calls.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dbus_next import Message, MessageFlag, MessageType, Variant

from .connection import BusError, BusTimeout, Connection, bounded, open_connection

__all__ = ["BusError", "BusTimeout", "SystemBus", "plain", "variants"]

TIMEOUT_SEC = 10.0

_DAEMON = "org.freedesktop.DBus"
_DAEMON_PATH = "/org/freedesktop/DBus"

Handler = Callable[[str, list[Any]], None]
"""Takes the object path and the body (variants unwrapped); runs on the loop, does not wait."""


@dataclass(frozen=True, slots=True)
class _Route:
    sender: str
    path: str | None
    path_namespace: str | None
    signature: str
    handler: Handler

    def takes(self, path: str, signature: str) -> bool:
        if signature != self.signature or self.path not in (None, path):
            return False
        namespace = self.path_namespace
        return namespace is None or path == namespace or path.startswith(namespace.rstrip("/") + "/")


class SystemBus:
    """The system bus, or the one at an address. Made by `connect`, closed by `close`."""

    def __init__(self, connection: Connection, timeout_sec: float) -> None:
        self._connection: Any = connection
        self._timeout_sec = timeout_sec
        self._routes: dict[tuple[str, str], list[_Route]] = defaultdict(list)
        self._owners: dict[str, str] = {}  # unique name by tracked well-known name, "" for nobody
        self._tracked: dict[str, list[Callable[[str], None]]] = {}
        self._connection.add_message_handler(self._on_message)

    @classmethod
    async def connect(cls, address: str | None = None, *, timeout_sec: float = TIMEOUT_SEC) -> SystemBus:
        """Connects and authenticates; BusTimeout, or BusError where there is no bus or it refuses."""
        return cls(await open_connection(address, timeout_sec), timeout_sec)

    @property
    def connection(self) -> Any:
        """The dbus-next connection, for the side that exports our own interface."""
        return self._connection

    @property
    def unique_name(self) -> str:
        return str(self._connection.unique_name)

    @property
    def connected(self) -> bool:
        return bool(self._connection.connected)

    async def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: Sequence[Any] = (),
        *,
        timeout_sec: float | None = None,
        interactive: bool = False,
    ) -> list[Any]:
        """The body of the reply, variants unwrapped; BusError or BusTimeout.

        `interactive` lets the service ask the user for a password through polkit.
        """
        if not self.connected:
            raise BusError("org.freedesktop.DBus.Error.Disconnected", "the connection to the bus is closed")
        message = Message(
            destination=destination,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=list(body),
            flags=MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION if interactive else MessageFlag.NONE,
        )
        deadline_sec = self._timeout_sec if timeout_sec is None else timeout_sec
        reply = await bounded(self._connection.call(message), f"{interface}.{member}", deadline_sec)
        if reply is None:  # how dbus-next answers what is in flight at our own hang-up
            raise BusError("org.freedesktop.DBus.Error.Disconnected", "the connection to the bus was closed")
        if reply.message_type is MessageType.ERROR:
            text = reply.body[0] if reply.signature.startswith("s") else ""
            raise BusError(reply.error_name, text)
        return [plain(value) for value in reply.body]

    async def add_match(self, rule: str) -> None:
        """Asks the daemon for the broadcasts that `rule` describes."""
        await self.call(_DAEMON, _DAEMON_PATH, _DAEMON, "AddMatch", "s", [rule])

    async def remove_match(self, rule: str) -> None:
        await self.call(_DAEMON, _DAEMON_PATH, _DAEMON, "RemoveMatch", "s", [rule])

    def send(self, message: Any) -> None:
        """Sends a reply or signal, which nobody answers; TypeError or the like when its body is wrong."""
        if self.connected:  # else its descriptor may be somebody else's by now
            self._connection.send(message)

    async def send_built(self, build: Callable[[], Any]) -> None:
        """Sends a message that takes long to make: `build` and the marshalling run on a thread."""
        serial = self._connection.next_serial()

        def marshalled() -> bytes:
            message = build()
            message.serial = serial
            return bytes(message._marshall())

        data = await asyncio.to_thread(marshalled)
        if self.connected:
            self._connection.send_bytes(data)

    async def track(self, name: str, on_change: Callable[[str], None] | None = None) -> str:
        """Follows who owns a well-known name; the unique name of its owner now, "" for nobody.

        `on_change` is called with the new owner at each change from now on.
        """
        callbacks = self._tracked.get(name)
        if callbacks is None:
            callbacks = self._tracked[name] = []
            await self.add_match(
                f"type='signal',sender='{_DAEMON}',path='{_DAEMON_PATH}',interface='{_DAEMON}',"
                f"member='NameOwnerChanged',arg0='{name}'"
            )
            try:
                [owner] = await self.call(_DAEMON, _DAEMON_PATH, _DAEMON, "GetNameOwner", "s", [name])
            except BusError as error:
                if error.name != "org.freedesktop.DBus.Error.NameHasNoOwner":
                    raise
                owner = ""
            self._owners.setdefault(name, owner)  # a change that was heard meanwhile is newer
        if on_change is not None:
            callbacks.append(on_change)
        return self._owners.get(name, "")

    async def on_signal(
        self,
        *,
        sender: str,
        interface: str,
        member: str,
        signature: str,
        handler: Handler,
        path: str | None = None,
        path_namespace: str | None = None,
    ) -> None:
        """Calls `handler` for such signals of the current owner of the well-known name `sender`."""
        await self.track(sender)
        self._routes[interface, member].append(_Route(sender, path, path_namespace, signature, handler))
        rule = f"type='signal',sender='{sender}',interface='{interface}',member='{member}'"
        if path is not None:
            rule += f",path='{path}'"
        if path_namespace is not None:
            rule += f",path_namespace='{path_namespace}'"
        await self.add_match(rule)

    def is_owner(self, sender: str | None, name: str) -> bool:
        """Whether the unique name `sender` owns the tracked well-known name now."""
        return bool(sender) and self._owners.get(name) == sender

    async def wait_disconnected(self) -> None:
        """Returns when the connection is gone, however it went."""
        await self._connection.wait_gone()

    def close(self) -> None:
        self._connection.hang_up()

    def _on_message(self, message: Any) -> None:
        if message.message_type is not MessageType.SIGNAL:
            return
        if message.sender == _DAEMON:
            if message.member == "NameOwnerChanged" and message.signature == "sss":
                self._owner_changed(*message.body)
            return
        for route in self._routes.get((message.interface, message.member), ()):
            if self.is_owner(message.sender, route.sender) and route.takes(message.path, message.signature):
                route.handler(message.path, [plain(value) for value in message.body])

    def _owner_changed(self, name: str, _old_owner: str, new_owner: str) -> None:
        if name in self._tracked:
            self._owners[name] = new_owner
            for callback in self._tracked[name]:
                callback(new_owner)


def variants(**values: bool | str) -> dict[str, Any]:
    """An a{sv} of what is set: False and "" are left out."""
    return {
        name: Variant("b" if isinstance(value, bool) else "s", value)
        for name, value in values.items()
        if value
    }


def plain(value: Any) -> Any:
    """A value of a message's body without its variants."""
    if isinstance(value, Variant):
        return plain(value.value)
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value
