"""Messages off the socket, one at a time, where any local user may have written them.

Hard facts (dbus-next 0.2.3, dbus-daemon 1.14):

- Unmarshalling costs about 10 us for each value: an array of numbers that the bus lets
  pass (32 MiB) would stop the loop for a minute and take a gigabyte.
- dbus-next keeps every signature it ever saw, and takes what it does not know (a header
  field, a type of message) for a broken connection.
- Replies come only from those that were asked. Calls and signals come from anybody.
"""

from __future__ import annotations

from struct import unpack_from
from typing import Any

from dbus_next._private.constants import BIG_ENDIAN
from dbus_next._private.unmarshaller import MarshallerStreamEndError, Unmarshaller
from dbus_next.constants import MessageType
from dbus_next.signature import SignatureTree

MAX_UNASKED_BYTES = 8 << 10  # of a call or signal; every one of ours has less
MAX_SIGNATURES = 1_000
_FIXED_BYTES = 16  # of the header, up to the length of its fields
_PIECE_BYTES = 64 << 10


class Skipped(Exception):
    """A message was left out: it is too large, or not understood."""


class Reader(Unmarshaller):  # type: ignore[misc]  # dbus-next is untyped
    """dbus-next's, for one message."""

    _discard_bytes: int | None = None

    def unmarshall(self) -> Any:
        """The message, None when more of it is still to come. Raises Skipped, EOFError or OSError."""
        try:
            self._receive()
        except MarshallerStreamEndError:
            return None
        if self._discard_bytes is not None:
            raise Skipped
        if len(SignatureTree._cache) > MAX_SIGNATURES:
            SignatureTree._cache.clear()
        try:
            self._unmarshall()
        except Exception as error:  # whatever bad data makes of unmarshalling; all of it has been read
            raise Skipped from error
        return self.message

    def _receive(self) -> None:
        """All of the message into the buffer, or off the socket where it is too large."""
        if self._discard_bytes is None:
            self.offset = 0
            self.read(_FIXED_BYTES, prefetch=True)
            byte_order = ">" if self.buf[0] == BIG_ENDIAN else "<"
            body_bytes, fields_bytes = unpack_from(f"{byte_order}4xI4xI", self.buf)
            whole_bytes = _FIXED_BYTES + fields_bytes + -fields_bytes % 8 + body_bytes
            unasked = self.buf[1] not in (MessageType.METHOD_RETURN.value, MessageType.ERROR.value)
            if not unasked or whole_bytes <= MAX_UNASKED_BYTES:
                self.read(whole_bytes, prefetch=True)
                return
            self._discard_bytes = whole_bytes - len(self.buf)
        while self._discard_bytes:
            data = self.stream.read(min(self._discard_bytes, _PIECE_BYTES))
            if data is None:
                raise MarshallerStreamEndError
            if data == b"":
                raise EOFError
            self._discard_bytes -= len(data)
