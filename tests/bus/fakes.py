"""logind and systemd as seen from the bus: their names, their signals, the few calls that are made.

No fake reproduces when systemd removes a cgroup; the tests that need that run on a
real one. Signatures are those of org.freedesktop.login1(5) and systemd1(5).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar, Self

from dbus_next import Message, MessageType, Variant
from dbus_next.aio import MessageBus

from logindguard.model import Teardown
from logindguard.signals.registry import Registry


class Peer:
    """Somebody else on the bus; owns NAME if the class has one."""

    NAME: ClassVar[str] = ""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.calls: list[str] = []  # members called on us
        self.silent: set[str] = set()  # members that are never answered
        self.errors: dict[str, str] = {}  # D-Bus error name by member
        connection.add_message_handler(self._on_message)

    @classmethod
    async def connect(cls, address: str) -> Self:
        peer = cls(await MessageBus(bus_address=address).connect())
        if cls.NAME:
            await peer.own(cls.NAME)
        return peer

    @property
    def unique_name(self) -> str:
        return str(self._connection.unique_name)

    async def own(self, name: str) -> None:
        await self._connection.request_name(name)

    async def disown(self, name: str) -> None:
        await self._connection.release_name(name)

    def emit(
        self, interface: str, member: str, path: str, signature: str, *body: Any, to: str | None = None
    ) -> None:
        """A broadcast, or with `to` a signal for one receiver, whatever that one matches."""
        message = Message(
            message_type=MessageType.SIGNAL,
            interface=interface,
            member=member,
            path=path,
            signature=signature,
            body=list(body),
            destination=to,
        )
        self._connection.send(message)

    async def flush(self) -> None:
        """Returns when the daemon has routed all that was emitted."""
        await self._connection.call(
            Message(
                destination="org.freedesktop.DBus",
                path="/org/freedesktop/DBus",
                interface="org.freedesktop.DBus.Peer",
                member="Ping",
            )
        )

    def close(self) -> None:
        if self._connection.connected:
            self._connection.disconnect()
            self._connection._finalize(None)
        lost = self._connection._disconnect_future
        if lost.done() and not lost.cancelled():
            lost.exception()  # seen: the bus was killed before
        self._connection._stream.close()
        self._connection._sock.close()

    def answer(self, message: Any) -> tuple[str, list[Any]] | None:
        """Signature and body of the reply; None: no such method or object."""
        return None

    def _on_message(self, message: Any) -> Any:
        if message.message_type is not MessageType.METHOD_CALL:
            return None
        self.calls.append(message.member)
        if message.member in self.silent:
            return True
        if message.member in self.errors:
            return Message.new_error(message, self.errors[message.member], "as the test wants it")
        answer = self.answer(message)
        if answer is None:
            return Message.new_error(message, "org.freedesktop.DBus.Error.UnknownObject", "not here")
        signature, body = answer
        return Message.new_method_return(message, signature, body)


class FakeLogin1(Peer):
    NAME = "org.freedesktop.login1"
    PATH: ClassVar[str] = "/org/freedesktop/login1"

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self.sessions: dict[str, dict[str, Variant]] = {}  # by object path

    def add(self, session_id: str, uid: int, service: str, *, scope: str | None = None) -> None:
        self.sessions[self._path(session_id)] = {
            "Id": Variant("s", session_id),
            "User": Variant("(uo)", [uid, f"{self.PATH}/user/_{uid}"]),
            "Name": Variant("s", f"user{uid}"),
            "Leader": Variant("u", 4711),
            "Service": Variant("s", service),
            "Scope": Variant("s", f"session-{session_id}.scope" if scope is None else scope),
            "Class": Variant("s", "user"),
            "Type": Variant("s", "tty"),
        }

    def session_new(self, session_id: str) -> None:
        self._emit("SessionNew", "so", session_id, self._path(session_id))

    def session_removed(self, session_id: str) -> None:
        self._emit("SessionRemoved", "so", session_id, self._path(session_id))

    def user_removed(self, uid: int) -> None:
        self._emit("UserRemoved", "uo", uid, f"{self.PATH}/user/_{uid}")

    def answer(self, message: Any) -> tuple[str, list[Any]] | None:
        if message.member == "ListSessions":
            return "a(susso)", [
                [
                    [s["Id"].value, s["User"].value[0], s["Name"].value, "", path]
                    for path, s in self.sessions.items()
                ]
            ]
        if message.member == "GetAll" and message.path in self.sessions:
            assert message.body == ["org.freedesktop.login1.Session"]
            return "a{sv}", [self.sessions[message.path]]
        return None

    def _emit(self, member: str, signature: str, *body: Any) -> None:
        self.emit("org.freedesktop.login1.Manager", member, self.PATH, signature, *body)

    def _path(self, session_id: str) -> str:
        return f"{self.PATH}/session/_3{session_id}"


class FakeSystemd1(Peer):
    NAME = "org.freedesktop.systemd1"
    PATH: ClassVar[str] = "/org/freedesktop/systemd1"

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._jobs: dict[str, str] = {}  # type by object path

    def unit_new(self, unit: str) -> None:
        self._emit("UnitNew", "so", unit, f"{self.PATH}/unit/u")

    def unit_removed(self, unit: str) -> None:
        self._emit("UnitRemoved", "so", unit, f"{self.PATH}/unit/u")

    def job_new(self, unit: str, job_type: str) -> None:
        job_id = len(self._jobs) + 1
        self._jobs[f"{self.PATH}/job/{job_id}"] = job_type
        self._emit("JobNew", "uos", job_id, f"{self.PATH}/job/{job_id}", unit)

    def job_removed(self, unit: str, result: str = "done") -> None:
        """The job that was made last is over."""
        job_id = len(self._jobs)
        self._emit("JobRemoved", "uoss", job_id, f"{self.PATH}/job/{job_id}", unit, result)

    def reloading(self, active: bool) -> None:
        self._emit("Reloading", "b", active)

    def answer(self, message: Any) -> tuple[str, list[Any]] | None:
        if message.member == "Subscribe":
            return "", []
        if message.member == "Get" and message.path in self._jobs:
            assert message.body == ["org.freedesktop.systemd1.Job", "JobType"]
            return "v", [Variant("s", self._jobs[message.path])]
        return None

    def _emit(self, member: str, signature: str, *body: Any) -> None:
        self.emit("org.freedesktop.systemd1.Manager", member, self.PATH, signature, *body)


class Tree:
    """A registry, and the cgroup directories that its sources look at."""

    def __init__(self) -> None:
        self.directories: dict[str, int] = {}
        self.told: list[Teardown] = []
        self.registry = Registry(lambda unit: unit.startswith(("session-", "user", "run-")), self.told.append)
        self._inode = 100

    def inode_of(self, path: str) -> int | None:
        return self.directories.get(path)

    def mkdir(self, path: str) -> int:
        """A new cgroup, as the watch reports it."""
        self._inode += 1
        self.directories[path] = self._inode
        self.registry.appeared(path, self._inode, 0)
        return self._inode

    def rmdir(self, path: str) -> None:
        """Removed, and the watch was deaf."""
        del self.directories[path]

    @property
    def brief(self) -> list[tuple[str, int, str, str]]:
        return [(t.unit, t.inode, t.phase.value, t.source.value) for t in self.told]


async def until(condition: Callable[[], object], timeout_sec: float = 60.0) -> None:
    """Polls; a condition that does not come true fails the test."""
    deadline = asyncio.get_running_loop().time() + timeout_sec
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)
