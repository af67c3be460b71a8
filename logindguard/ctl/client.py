"""The running service as the verbs see it: its calls with deadlines, its errors as one sentence."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..dbus.names import BUS_NAME, HOOK, MANAGER, PATH, Error
from .agent import password_agent
from .exits import Exit, Failure

if TYPE_CHECKING:
    from ..signals.bus import BusError, SystemBus

_PROPERTIES = "org.freedesktop.DBus.Properties"
CONNECT_SEC = 5.0
CALL_SEC = 25.0  # as libdbus
PAGE = 1000  # records that the service gives in one answer
ASK_SEC = 300.0  # somebody may be typing a password

Record = dict[str, Any]

_BUS_ERROR = "org.freedesktop.DBus.Error."
STATUS: dict[str, Exit] = {
    Error.NO_SUCH_UNIT: Exit.NOT_FOUND,
    Error.NO_SUCH_SESSION: Exit.NOT_FOUND,
    Error.NO_SUCH_RECLAIM: Exit.NOT_FOUND,
    Error.NO_SUCH_JOB: Exit.NOT_FOUND,
    Error.BUSY: Exit.TEMPORARY,
    Error.PAUSED: Exit.TEMPORARY,
    Error.NOT_ENDING: Exit.TEMPORARY,
    Error.NOT_SUPPORTED: Exit.UNAVAILABLE,
    Error.NOT_COVERED: Exit.UNAVAILABLE,
    Error.HISTORY_UNAVAILABLE: Exit.UNAVAILABLE,
    Error.INVALID_CONFIG: Exit.SETTINGS,
    Error.RESTORE_FAILED: Exit.KERNEL,
    Error.FAILED: Exit.INTERNAL,
    Error.ACCESS_DENIED: Exit.DENIED,
    Error.INTERACTIVE_AUTHORIZATION_REQUIRED: Exit.DENIED,
    Error.INVALID_ARGS: Exit.USAGE,
    Error.LIMITS_EXCEEDED: Exit.TEMPORARY,
    Error.PROPERTY_READ_ONLY: Exit.PROTOCOL,
    Error.UNKNOWN_INTERFACE: Exit.PROTOCOL,
    Error.UNKNOWN_METHOD: Exit.PROTOCOL,
    Error.UNKNOWN_OBJECT: Exit.PROTOCOL,
    Error.UNKNOWN_PROPERTY: Exit.PROTOCOL,
    f"{_BUS_ERROR}NoReply": Exit.TEMPORARY,
    f"{_BUS_ERROR}Timeout": Exit.TEMPORARY,
    f"{_BUS_ERROR}ServiceUnknown": Exit.UNAVAILABLE,
    f"{_BUS_ERROR}NameHasNoOwner": Exit.UNAVAILABLE,
    f"{_BUS_ERROR}NoServer": Exit.UNAVAILABLE,
    f"{_BUS_ERROR}Disconnected": Exit.UNAVAILABLE,
    f"{_BUS_ERROR}AuthFailed": Exit.DENIED,
}
_SENTENCES: dict[str, str] = {
    Error.ACCESS_DENIED: "Not permitted; try as root, or ask the administrator for a polkit rule.",
    Error.INTERACTIVE_AUTHORIZATION_REQUIRED: "Not permitted without a password; try as root.",
    f"{_BUS_ERROR}NoReply": "The service did not answer in time; see 'systemctl status logindguard'.",
    f"{_BUS_ERROR}ServiceUnknown": "The service has just ended.",
    f"{_BUS_ERROR}Disconnected": "The connection to the system bus was lost.",
}


class ServiceAbsent(Failure):
    """Nobody owns the name, there is no bus, or python3-dbus-next is not installed."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(f"{reason}{hint}.", Exit.UNAVAILABLE)
        self.reason = reason


def failure_of(error: BusError) -> Failure:
    """The sentence and exit status of a call that failed."""
    sentence = _SENTENCES.get(error.name)
    if sentence is None:
        sentence = (error.message or error.name).rstrip(".") + "."
        if STATUS.get(error.name) is Exit.PROTOCOL:
            sentence = f"The running service is of another version: {sentence}"
    return Failure(sentence[:1].upper() + sentence[1:], STATUS.get(error.name, Exit.INTERNAL))


class Service:
    """Made by `connect`, ended by `close`. Every call raises Failure."""

    def __init__(self, bus: SystemBus, owner: str, *, interactive: bool) -> None:
        self.bus = bus
        self._owner = owner  # the unique name: a call to the other would start a stopped service
        self._interactive = interactive

    @classmethod
    async def connect(cls, address: str | None, *, interactive: bool) -> Service:
        """ServiceAbsent where it does not run; it is never started by this."""
        try:
            from ..signals.bus import BusError, SystemBus
        except ImportError as error:
            raise ServiceAbsent(
                "The service cannot be asked, since python3-dbus-next is not installed"
            ) from error
        try:
            bus = await SystemBus.connect(address, timeout_sec=CONNECT_SEC)
        except BusError as error:
            raise ServiceAbsent("There is no system bus to reach the service by") from error
        try:
            owner = await bus.track(BUS_NAME)
            if owner and os.geteuid() == 0:  # a road of its own, which no other user's calls can block
                owner = await bus.track(HOOK) or owner
        except BusError as error:
            bus.close()
            raise failure_of(error) from error
        if not owner:
            bus.close()
            raise ServiceAbsent("The service does not run", ": 'systemctl start logindguard' starts it")
        return cls(bus, owner, interactive=interactive)

    def close(self) -> None:
        self.bus.close()

    async def _call(
        self, interface: str, member: str, signature: str, body: Sequence[Any], *, asks: bool = False
    ) -> list[Any]:
        from ..signals.bus import BusError

        try:
            return await self.bus.call(
                self._owner,
                PATH,
                interface,
                member,
                signature,
                body,
                timeout_sec=ASK_SEC if asks else CALL_SEC,
                interactive=asks,
            )
        except BusError as error:
            raise failure_of(error) from error

    async def call(self, member: str, signature: str = "", *body: Any) -> list[Any]:
        """A call of our interface that reads: nobody is asked for a password."""
        return await self._call(MANAGER, member, signature, body)

    async def act(self, member: str, signature: str = "", *body: Any) -> list[Any]:
        """A call of our interface that may have to ask the user for a password."""
        if not self._interactive or os.geteuid() == 0:
            return await self.call(member, signature, *body)
        async with password_agent():
            return await self._call(MANAGER, member, signature, body, asks=True)

    async def properties(self) -> Record:
        """All properties, their names in snake_case: "dying_count", "last_sweep_usec"."""
        [found] = await self._call(_PROPERTIES, "GetAll", "s", [MANAGER])
        return {snake_case(name): value for name, value in found.items()}

    async def property(self, name: str) -> Any:
        [value] = await self._call(_PROPERTIES, "Get", "ss", [MANAGER, name])
        return value

    async def residues(self) -> list[Record]:
        """One for each live parent; without `dying` on cgroup v1, which counts the hierarchy as a whole."""
        [rows] = await self.call("ListResidues")
        if rows and await self.property("CgroupVersion") == 1:
            return [without_dying(row) for row in rows]
        return list(rows)

    async def reclaims(
        self,
        since_usec: int = 0,
        until_usec: int = 0,
        *,
        most: int | None = None,
        wanted: Callable[[Record], bool] | None = None,
    ) -> list[Record]:
        """At most so many, newest first; 0 stands for no bound."""
        found: dict[str, Record] = {}
        oldest_usec = -1
        while most is None or len(found) < most:
            limit = PAGE if most is None or wanted else min(PAGE, most)
            [page] = await self.call("ListReclaims", "ttu", since_usec, until_usec, limit)
            found |= {record["id"]: record for record in page if wanted is None or wanted(record)}
            # The next page begins with the records of the microsecond that this one ends with.
            if len(page) < limit or page[-1]["realtime_usec"] == oldest_usec:
                break
            until_usec = oldest_usec = page[-1]["realtime_usec"]
        return list(found.values())[:most]

    async def job(self, number: int) -> Record | None:
        """Where a job stands; None when it is not listed any more."""
        [jobs] = await self.call("ListJobs")
        return next((dict(job) for job in jobs if job.get("id") == number), None)

    async def on_signal(self, member: str, signature: str, handler: Callable[..., None]) -> None:
        """Calls `handler` with the signal's values."""
        from ..signals.bus import BusError

        try:
            await self.bus.on_signal(
                sender=BUS_NAME,
                interface=MANAGER,
                member=member,
                signature=signature,
                handler=lambda _path, body: handler(*body),
            )
        except BusError as error:
            raise failure_of(error) from error


def without_dying(row: Record) -> Record:
    return {name: value for name, value in row.items() if name != "dying"}


def snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.replace("USec", "Usec")).lower()
