"""A D-Bus connection with deadlines, and signals only from whom they claim to be.

Hard facts (dbus-next 0.2.3, dbus-daemon 1.14):

- A call after a disconnect waits for ever, a call has no timeout, the connect()
  of the socket blocks the loop. When the daemon hangs up while it authenticates,
  dbus-next reads empty strings without ever giving the loop a turn.
- Everything that the socket holds is handled in one turn of the loop: 10,000
  signals stop it for seconds.
- The socket is shut down on disconnect but not closed.
- A match rule with sender= is checked by the daemon only for broadcasts. Any
  local user can send a signal straight to our unique name, whatever we match:
  so each signal's sender is compared with the current owner of the well-known
  name. Owner changes and signals come in one order, the daemon's.
- When the daemon answers Hello with an error, dbus-next takes its text for our name.
- On the system bus the daemon refuses more than 128 unanswered calls.

What dbus-next lacks is put right in `_Connection`, by methods it calls itself;
upstream is not maintained, so they will not change under us.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from dbus_next import BusType, Message, MessageType, Variant
from dbus_next.aio import MessageBus
from dbus_next.errors import AuthError

log = logging.getLogger(__name__)

TIMEOUT_SEC = 10.0
_MESSAGES_PER_TURN = 50
_CONNECT_RETRY_SEC = 0.1

_DAEMON = "org.freedesktop.DBus"
_DAEMON_PATH = "/org/freedesktop/DBus"

T = TypeVar("T")
Handler = Callable[[str, list[Any]], None]
"""Takes the object path and the body (variants unwrapped); runs on the loop, does not wait."""


class BusError(Exception):
    """A call failed; `name` is the D-Bus error name."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}" if message else name)
        self.name = name
        self.message = message


class BusTimeout(BusError):
    """No answer within the deadline."""

    def __init__(self, what: str, timeout_sec: float) -> None:
        super().__init__("org.freedesktop.DBus.Error.NoReply", f"{what} took more than {timeout_sec:g} s")


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

    def __init__(self, connection: _Connection, timeout_sec: float) -> None:
        self._connection: Any = connection
        self._timeout_sec = timeout_sec
        self._routes: dict[tuple[str, str], list[_Route]] = defaultdict(list)
        self._owners: dict[str, str] = {}  # unique name by tracked well-known name, "" for nobody
        self._tracked: dict[str, list[Callable[[str], None]]] = {}
        self._connection.add_message_handler(self._on_message)

    @classmethod
    async def connect(cls, address: str | None = None, *, timeout_sec: float = TIMEOUT_SEC) -> SystemBus:
        """Connects and authenticates; BusTimeout, or BusError where there is no bus or it refuses."""
        deadline = asyncio.get_running_loop().time() + timeout_sec
        while (connection := _connected_socket(address)) is None:
            if asyncio.get_running_loop().time() >= deadline:
                raise BusTimeout("connecting to the bus", timeout_sec)
            await asyncio.sleep(_CONNECT_RETRY_SEC)
        try:
            await _bounded(connection.connect(), "authenticating to the bus", timeout_sec)
            if not connection.unique_name.startswith(":"):  # the text of an error, taken for the name
                raise BusError("org.freedesktop.DBus.Error.LimitsExceeded", connection.unique_name)
        except BaseException:  # a cancelled connect must not leave its socket either
            connection.hang_up()
            raise
        return cls(connection, timeout_sec)

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
    ) -> list[Any]:
        """The body of the reply, variants unwrapped; BusError or BusTimeout."""
        if not self.connected:
            raise BusError("org.freedesktop.DBus.Error.Disconnected", "the connection to the bus is closed")
        message = Message(
            destination=destination,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=list(body),
        )
        deadline_sec = self._timeout_sec if timeout_sec is None else timeout_sec
        reply = await _bounded(self._connection.call(message), f"{interface}.{member}", deadline_sec)
        if reply is None:  # how dbus-next answers what is in flight at our own hang-up
            raise BusError("org.freedesktop.DBus.Error.Disconnected", "the connection to the bus was closed")
        if reply.message_type is MessageType.ERROR:
            text = reply.body[0] if reply.signature.startswith("s") else ""
            raise BusError(reply.error_name, text)
        return [_plain(value) for value in reply.body]

    async def add_match(self, rule: str) -> None:
        """Asks the daemon for the broadcasts that `rule` describes."""
        await self.call(_DAEMON, _DAEMON_PATH, _DAEMON, "AddMatch", "s", [rule])

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
                route.handler(message.path, [_plain(value) for value in message.body])

    def _owner_changed(self, name: str, _old_owner: str, new_owner: str) -> None:
        if name in self._tracked:
            self._owners[name] = new_owner
            for callback in self._tracked[name]:
                callback(new_owner)


class _Connection(MessageBus):  # type: ignore[misc]  # dbus-next is untyped
    """dbus-next's connection, which lets the loop breathe and closes its socket."""

    _turn_pending = False
    _sock: Any = None
    _stream: Any = None
    _unmarshaller: Any

    def _setup_socket(self) -> None:
        self._gone = asyncio.Event()
        try:
            super()._setup_socket()
        except BaseException:  # half-made: nobody else could close it
            self._close_socket()
            raise

    async def _auth_readline(self) -> str:
        line = b""
        while not line.endswith(b"\r\n"):
            received = await self._loop.sock_recv(self._sock, 1)
            if not received:
                raise ConnectionError("the bus hung up while authenticating")
            line += received
        return line[:-2].decode()

    def _message_reader(self) -> None:
        """Called when the socket is readable, and again for what already waits in our own buffer."""
        try:
            for _ in range(_MESSAGES_PER_TURN):
                if self._disconnected or not self._unmarshaller.unmarshall():
                    return
                self._on_message(self._unmarshaller.message)
                self._unmarshaller = self._create_unmarshaller()
        except Exception as error:  # noqa: BLE001  # EOFError, OSError, whatever bad data makes of unmarshalling
            self._finalize(error)
            return
        if not self._turn_pending:
            self._turn_pending = True
            self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._turn_pending = False
        if not self._disconnected:
            self._message_reader()

    def _finalize(self, error: BaseException | None = None) -> None:
        if self._disconnected:
            return  # the descriptor's number may be somebody else's by now
        super()._finalize(error or ConnectionError("the connection to the bus was closed"))
        if self._disconnect_future.done() and not self._disconnect_future.cancelled():
            self._disconnect_future.exception()  # marks it as seen; wait_gone() is what we wait on
        self._close_socket()
        self._gone.set()

    def _close_socket(self) -> None:
        for thing in (self._stream, self._sock):
            try:
                if thing is not None:
                    thing.close()
            except OSError:  # flushing what the peer will not read; the descriptor is closed all the same
                pass

    def hang_up(self) -> None:
        """Ends the connection at once; harmless when it has ended."""
        self._user_disconnect = True
        self._finalize()

    async def wait_gone(self) -> None:
        await self._gone.wait()


def _connected_socket(address: str | None) -> _Connection | None:
    """A connection that still has to authenticate; None when the daemon is too busy to take one."""
    # The constructor makes the socket and connects it: the default timeout is the only handle on that.
    # Without blocking, connect() to a unix socket is done at once, or refused with EAGAIN: unix(7).
    default_timeout_sec = socket.getdefaulttimeout()
    socket.setdefaulttimeout(0)
    try:
        return _Connection(bus_address=address, bus_type=BusType.SYSTEM, negotiate_unix_fd=False)
    except BlockingIOError:
        return None
    except Exception as error:  # dbus-next raises OSError, its own errors and bare Exception here
        raise BusError("org.freedesktop.DBus.Error.NoServer", str(error)) from error
    finally:
        socket.setdefaulttimeout(default_timeout_sec)


async def _bounded(answer: Awaitable[T], what: str, timeout_sec: float) -> T:
    try:
        return await asyncio.wait_for(answer, timeout_sec)
    except TimeoutError as error:
        raise BusTimeout(what, timeout_sec) from error
    except AuthError as error:
        raise BusError("org.freedesktop.DBus.Error.AuthFailed", str(error)) from error
    except (OSError, EOFError) as error:
        raise BusError("org.freedesktop.DBus.Error.Disconnected", str(error)) from error


def _plain(value: Any) -> Any:
    if isinstance(value, Variant):
        return _plain(value.value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
