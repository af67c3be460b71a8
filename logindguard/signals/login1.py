"""logind as a source: which sessions there are, whose they are, and that they ended.

org.freedesktop.login1(5). SessionNew comes a few milliseconds before the scope is
there, SessionRemoved after its rmdir, or with the scope still full of left-over
processes, or never.
"""

from __future__ import annotations

from typing import Any

from ..model import Source
from .bus import SystemBus
from .chores import DEADLINE_SEC, Chores
from .confirm import InodeOf, confirm_ended, monotonic_usec
from .registry import Registry

NAME = "org.freedesktop.login1"
PATH = "/org/freedesktop/login1"
MANAGER = "org.freedesktop.login1.Manager"
SESSION = "org.freedesktop.login1.Session"


class Login1:
    """Feeds `registry` with what logind says."""

    def __init__(
        self, bus: SystemBus, registry: Registry, inode_of: InodeOf, *, deadline_sec: float = DEADLINE_SEC
    ) -> None:
        self._bus = bus
        self._registry = registry
        self._inode_of = inode_of
        self._chores = Chores("logind", deadline_sec=deadline_sec)

    async def start(self) -> None:
        """Listens, then asks for the sessions that are there; BusError when the bus refuses the former."""
        for member, signature, handler in (
            ("SessionNew", "so", self._session_new),
            ("SessionRemoved", "so", self._session_removed),
            ("UserRemoved", "uo", self._user_removed),
        ):
            await self._bus.on_signal(
                sender=NAME, interface=MANAGER, member=member, path=PATH, signature=signature, handler=handler
            )
        if await self._bus.track(NAME, self._owner_changed):
            self._chores.start(self._list_sessions)

    def stop(self) -> None:
        self._chores.stop()

    def _owner_changed(self, owner: str) -> None:
        if owner:  # logind was restarted: what it said meanwhile was not heard
            self._chores.start(self._list_sessions)

    def _session_new(self, _path: str, body: list[Any]) -> None:
        session_id, session_path = body
        self._ask(session_id, session_path)

    def _session_removed(self, _path: str, body: list[Any]) -> None:
        confirm_ended(self._registry, self._inode_of, _scope(body[0]), Source.LOGIN1)

    def _user_removed(self, _path: str, body: list[Any]) -> None:
        uid = body[0]
        for unit in (f"user@{uid}.service", f"user-runtime-dir@{uid}.service", f"user-{uid}.slice"):
            confirm_ended(self._registry, self._inode_of, unit, Source.LOGIN1)

    def _ask(self, session_id: str, session_path: str) -> None:
        if self._registry.covers(_scope(session_id)):
            self._chores.start(lambda: self._describe(session_path))

    async def _list_sessions(self) -> None:
        [sessions] = await self._bus.call(NAME, PATH, MANAGER, "ListSessions")
        for session_id, _uid, _user, _seat, session_path in sessions:
            self._ask(session_id, session_path)

    async def _describe(self, session_path: str) -> None:
        [session] = await self._bus.call(
            NAME, session_path, "org.freedesktop.DBus.Properties", "GetAll", "s", [SESSION]
        )
        uid, _user_path = session["User"]
        if session["Scope"]:  # sessions of some classes have none
            self._registry.described(
                unit=session["Scope"],
                session_id=session["Id"],
                uid=uid,
                service=session["Service"] or None,
                now_usec=monotonic_usec(),
            )


def _scope(session_id: str) -> str:
    """src/login/logind-session.c, session_start_scope()."""
    return f"session-{session_id}.scope"
