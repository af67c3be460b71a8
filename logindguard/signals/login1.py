"""logind as a source: which sessions there are, whose they are, and that they ended.

org.freedesktop.login1(5). SessionNew comes a few milliseconds before the scope is
there, SessionRemoved after its rmdir, or with the scope still full of left-over
processes, or never.
"""

from __future__ import annotations

from typing import Any

from ..model import Source
from .confirm import monotonic_usec
from .manager import Handler, Manager

SESSION = "org.freedesktop.login1.Session"


class Login1(Manager):
    NAME = "org.freedesktop.login1"
    PATH = "/org/freedesktop/login1"
    INTERFACE = "org.freedesktop.login1.Manager"
    SOURCE = Source.LOGIN1

    def signals(self) -> tuple[tuple[str, str, Handler], ...]:
        return (
            ("SessionNew", "so", self._session_new),
            ("SessionRemoved", "so", self._session_removed),
            ("UserRemoved", "uo", self._user_removed),
        )

    async def introduce(self) -> None:
        """Asks for the sessions that are there."""
        [sessions] = await self._bus.call(self.NAME, self.PATH, self.INTERFACE, "ListSessions")
        for session_id, _uid, _user, _seat, session_path in sessions:
            self._ask(session_id, session_path)

    def _session_new(self, _path: str, body: list[Any]) -> None:
        session_id, session_path = body
        self._ask(session_id, session_path)

    def _session_removed(self, _path: str, body: list[Any]) -> None:
        self._ended(_scope(body[0]))

    def _user_removed(self, _path: str, body: list[Any]) -> None:
        uid = body[0]
        for unit in (f"user@{uid}.service", f"user-runtime-dir@{uid}.service", f"user-{uid}.slice"):
            self._ended(unit)

    def _ask(self, session_id: str, session_path: str) -> None:
        if self._registry.covers(_scope(session_id)):
            self._chores.start(lambda: self._describe(session_path))

    async def _describe(self, session_path: str) -> None:
        [session] = await self._bus.call(
            self.NAME, session_path, "org.freedesktop.DBus.Properties", "GetAll", "s", [SESSION]
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
