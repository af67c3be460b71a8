"""dbus-next's connection with what it lacks: deadlines, a loop that goes on, a socket that is closed.

Hard facts (dbus-next 0.2.3):

- A call after a disconnect waits for ever, a call has no timeout, the connect()
  of the socket blocks the loop. When the daemon hangs up while it authenticates,
  dbus-next reads empty strings without ever giving the loop a turn.
- Everything that the socket holds is handled in one turn of the loop: 10,000
  signals stop it for seconds.
- A full socket (a daemon that is slow, or stopped) counts as a broken connection.
- The socket is shut down on disconnect but not closed.
- When the daemon answers Hello with an error, dbus-next takes its text for our name.

It is put right by overriding methods that dbus-next calls itself; upstream is not
maintained, so they will not change under us.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, TypeVar

from dbus_next import BusType
from dbus_next._private.address import get_bus_address
from dbus_next.aio import MessageBus
from dbus_next.errors import AuthError

from .reader import Reader, Skipped

_TURN_SEC = 0.002  # what else is to be done does not wait for longer than about this
_CONNECT_RETRY_SEC = 0.1

T = TypeVar("T")


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


class Connection(MessageBus):  # type: ignore[misc]  # dbus-next is untyped
    """Made by `open_connection`, ended by `hang_up`."""

    _turn_pending = False
    _sock: Any = None
    _stream: Any = None
    _unmarshaller: Any

    def __init__(self, address: str | None) -> None:
        super().__init__(bus_address=address, bus_type=BusType.SYSTEM, negotiate_unix_fd=False)
        self._writer.sock = _WriteEnd(self._sock)

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
        if self._turn_pending:
            return
        end_sec = time.monotonic() + _TURN_SEC
        try:
            while time.monotonic() < end_sec:
                if self._disconnected:
                    return
                with suppress(Skipped):
                    message = self._unmarshaller.unmarshall()
                    if message is None:
                        return
                    self._on_message(message)
                self._unmarshaller = self._create_unmarshaller()
        except (EOFError, OSError) as error:
            self._finalize(error)
            return
        self._turn_pending = True
        self._loop.call_soon(self._next_turn)

    def _create_unmarshaller(self) -> Reader:
        return Reader(self._stream)

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

    def send_bytes(self, data: bytes) -> None:
        """Sends a message that was marshalled before."""
        self._writer.messages.put_nowait((data, [], self._loop.create_future()))
        self._writer.schedule_write()

    def hang_up(self) -> None:
        """Ends the connection at once; harmless when it has ended."""
        self._user_disconnect = True
        self._finalize()

    async def wait_gone(self) -> None:
        await self._gone.wait()


class _WriteEnd:
    """The socket as dbus-next's writer uses it: a full one takes nothing, and is tried again later."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def send(self, data: memoryview) -> int:
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0


async def open_connection(address: str | None, timeout_sec: float) -> Connection:
    """Connects and authenticates; BusTimeout, or BusError where there is no bus or it refuses."""
    deadline = asyncio.get_running_loop().time() + timeout_sec
    while (connection := _connected_socket(address)) is None:
        if asyncio.get_running_loop().time() >= deadline:
            raise BusTimeout("connecting to the bus", timeout_sec)
        await asyncio.sleep(_CONNECT_RETRY_SEC)
    try:
        await bounded(connection.connect(), "authenticating to the bus", timeout_sec)
        if not connection.unique_name.startswith(":"):  # the text of an error, taken for the name
            raise BusError("org.freedesktop.DBus.Error.LimitsExceeded", connection.unique_name)
    except BaseException:  # a cancelled connect must not leave its socket either
        connection.hang_up()
        raise
    return connection


def _connected_socket(address: str | None) -> Connection | None:
    """A connection that still has to authenticate; None when the daemon is too busy to take one."""
    # The constructor makes the socket and connects it: the default timeout is the only handle on that.
    # Without blocking, connect() to a unix socket is done at once, or refused with EAGAIN: unix(7).
    default_timeout_sec = socket.getdefaulttimeout()
    socket.setdefaulttimeout(0)
    try:
        return Connection(address)
    except BlockingIOError:
        return None
    except OSError as error:
        where = address or get_bus_address(BusType.SYSTEM)
        raise BusError("org.freedesktop.DBus.Error.NoServer", f"{where}: {error.strerror}") from error
    except Exception as error:  # dbus-next raises its own errors and bare Exception here
        raise BusError("org.freedesktop.DBus.Error.NoServer", f"{address}: {error}") from error
    finally:
        socket.setdefaulttimeout(default_timeout_sec)


async def bounded(answer: Awaitable[T], what: str, timeout_sec: float) -> T:
    """The awaited result; BusTimeout after the deadline, BusError when the connection is or gets lost."""
    try:
        # Not wait_for: in Python 3.11 it can swallow a cancellation that comes with the answer.
        async with asyncio.timeout(timeout_sec):
            return await answer
    except TimeoutError as error:
        raise BusTimeout(what, timeout_sec) from error
    except AuthError as error:
        raise BusError("org.freedesktop.DBus.Error.AuthFailed", str(error)) from error
    except (OSError, EOFError) as error:
        raise BusError("org.freedesktop.DBus.Error.Disconnected", str(error)) from error
