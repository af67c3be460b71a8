"""Answers calls on our object: finds the member, checks the arguments, runs it, replies or says why not.

On the low-level connection, because dbus-next's own service side does not tell a
method who calls it and sends a traceback to whoever made it fail. Whatever comes
in, one reply goes out, or none where none is wanted. Callers are any local users:
what they can have in flight is bounded, and what a vanished one started ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import replace
from typing import Any

from dbus_next import Message, MessageFlag, MessageType, Variant

from ..signals.bus import BusError, SystemBus, plain
from .callers import Caller, CallerGone, Callers, owner_change
from .names import BUS_NAME, PATH, CallError, Error
from .standard import standard
from .table import Interface, Later, Method, signature

# In flight at once, on one connection.
MAX_CALLS = 256
MAX_CALLS_OF_SENDER = 16
MAX_CALLS_OF_USER = 64
MAX_LARGE = 2  # replies that are put together at once: each takes some megabytes meanwhile

_DAEMON = "org.freedesktop.DBus"
_DAEMON_PATH = "/org/freedesktop/DBus"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_IN_QUEUE = 2  # reply of RequestName

log = logging.getLogger(__name__)


class Server:
    """Serves one interface at PATH, with the standard ones and `hidden` ones beside it, under `name`.

    What is hidden is called like the rest, and has neither properties nor a place in the introspection.
    """

    def __init__(
        self, bus: SystemBus, interface: Interface, *hidden: Interface, name: str = BUS_NAME
    ) -> None:
        self._bus = bus
        self._name = name
        self._interface = interface
        served = {each.name: each for each in standard(interface)}
        self._everywhere = served  # they answer at every path, saying themselves where nothing is
        self._here = {each.name: each for each in (interface, *hidden)} | served
        self._callers = Callers(
            bus, on_gone=self._caller_gone, in_use=lambda name: bool(self._of_sender[name])
        )
        self._tasks: dict[asyncio.Task[None], str] = {}  # who called
        self._of_sender: Counter[str] = Counter()
        self._of_user: Counter[int] = Counter()
        self._large = asyncio.Semaphore(MAX_LARGE)
        bus.connection.add_message_handler(self._on_message)

    async def start(self) -> None:
        """Asks for our name; without it the rest of the guard goes on, and callers find nobody."""
        try:
            [answer] = await self._bus.call(
                _DAEMON, _DAEMON_PATH, _DAEMON, "RequestName", "su", [self._name, 0]
            )
        except BusError as error:
            log.warning("The guard cannot be called: the bus refuses it the name %s: %s", self._name, error)
            return
        if answer == _IN_QUEUE:
            log.warning("The guard cannot be called while another process owns the name %s.", self._name)

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._callers.stop()

    def emit(self, name: str, *body: Any) -> None:
        """Broadcasts a signal of the interface."""
        form = signature(self._interface.signals[name].gives)
        self._bus.send(Message.new_signal(PATH, self._interface.name, name, form, list(body)))

    def changed(self, *names: str) -> None:
        """Broadcasts the new values of properties that announce their changes."""
        values = {}
        for name in names:
            item = self._interface.properties[name]
            values[name] = Variant(item.signature, item.value())
        body = [self._interface.name, values, []]
        self._bus.send(Message.new_signal(PATH, _PROPERTIES, "PropertiesChanged", "sa{sv}as", body))

    # Taking a call in

    def _on_message(self, message: Any) -> bool | None:
        """Runs on the loop for every message; True for those that dbus-next shall not answer itself."""
        if message.message_type is MessageType.METHOD_CALL:
            self._take(message)
            return True
        if message.message_type is MessageType.SIGNAL and (change := owner_change(message)):
            self._callers.owner_changed(*change)
        return None

    def _take(self, message: Any) -> None:
        try:
            method = self._find(message)
            body = [plain(value) for value in message.body]
            if method.answer is not None:
                self._reply(message, method, method.answer(message.path, *body))
                return
            self._admit(message.sender)
        except CallError as error:
            self._refuse(message, error.name, error.sentence)
        except Exception as error:  # noqa: BLE001  # whatever it is, the caller gets an error without details
            self._fail(message, error)
        else:
            self._begin(message, method, body)

    def _find(self, message: Any) -> Method:
        reachable = self._here if message.path == PATH else self._everywhere
        where = f"at {message.path}"
        if message.interface is None:
            methods = [
                each.methods[message.member] for each in reachable.values() if message.member in each.methods
            ]
            method = methods[0] if methods else None
        elif (interface := reachable.get(message.interface)) is not None:
            method = interface.methods.get(message.member)
        elif message.interface in self._here:
            raise CallError(Error.UNKNOWN_OBJECT, f"There is no such object: {message.path}.")
        else:
            raise CallError(Error.UNKNOWN_INTERFACE, f"There is no interface {message.interface} {where}.")
        if method is None:
            raise CallError(Error.UNKNOWN_METHOD, f"There is no method {message.member} {where}.")
        wanted = signature(method.takes)
        if message.signature != wanted:
            raise CallError(Error.INVALID_ARGS, f"{method.name} takes '{wanted}', not '{message.signature}'.")
        return method

    def _admit(self, sender: str) -> None:
        if self._of_sender[sender] >= MAX_CALLS_OF_SENDER or len(self._tasks) >= MAX_CALLS:
            raise CallError(Error.LIMITS_EXCEEDED, "Too many calls at once: try again later.")

    # Running it

    def _begin(self, message: Any, method: Method, body: list[Any]) -> None:
        sender = message.sender
        task = asyncio.create_task(self._run(message, method, body), name=f"{method.name} for {sender}")
        self._tasks[task] = sender
        self._of_sender[sender] += 1
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        sender = self._tasks.pop(task)
        self._of_sender[sender] -= 1
        if not self._of_sender[sender]:
            del self._of_sender[sender]

    async def _run(self, message: Any, method: Method, body: list[Any]) -> None:
        try:
            caller = await self._callers.identify(message.sender)
            interactive = bool(message.flags & MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION)
            await self._counted(message, method, replace(caller, interactive=interactive), body)
        except CallerGone:
            pass
        except CallError as error:
            self._refuse(message, error.name, error.sentence)
        except Exception as error:  # noqa: BLE001  # whatever it is, the caller gets an error without details
            self._fail(message, error)

    async def _counted(self, message: Any, method: Method, caller: Caller, body: list[Any]) -> None:
        if caller.is_root:
            await self._handle(message, method, caller, body)
            return
        if self._of_user[caller.uid] >= MAX_CALLS_OF_USER:
            raise CallError(Error.LIMITS_EXCEEDED, "Too many calls of this user at once: try again later.")
        self._of_user[caller.uid] += 1
        try:
            await self._handle(message, method, caller, body)
        finally:
            self._of_user[caller.uid] -= 1
            if not self._of_user[caller.uid]:
                del self._of_user[caller.uid]

    async def _handle(self, message: Any, method: Method, caller: Caller, body: list[Any]) -> None:
        assert method.handler is not None
        answer = await method.handler(caller, *body)
        if not isinstance(answer, Later):
            self._reply(message, method, answer)
        elif not message.flags & MessageFlag.NO_REPLY_EXPECTED:
            build, form = answer.build, signature(method.gives)
            async with self._large:
                await self._bus.send_built(lambda: Message.new_method_return(message, form, build()))

    def _caller_gone(self, unique_name: str) -> None:
        for task, sender in self._tasks.items():
            if sender == unique_name:
                task.cancel()

    # Answering

    def _reply(self, message: Any, method: Method, body: list[Any]) -> None:
        self._send(message, Message.new_method_return(message, signature(method.gives), body))

    def _refuse(self, message: Any, name: Error, sentence: str) -> None:
        self._send(message, Message.new_error(message, name, sentence))

    def _fail(self, message: Any, error: Exception) -> None:
        log.error("A call of %s failed.", message.member, exc_info=error)
        self._refuse(
            message, Error.FAILED, "An internal error; the journal of logindguard.service has the details."
        )

    def _send(self, call: Any, answer: Any) -> None:
        if not call.flags & MessageFlag.NO_REPLY_EXPECTED:
            self._bus.send(answer)
