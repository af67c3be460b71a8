"""The system manager as a source: units that go, and stop jobs that say so before.

org.freedesktop.systemd1(5). At a natural end no signal comes before the rmdir;
only a stop job (terminate-session, systemctl stop) is announced, 3 to 30 ms
ahead. UnitNew is not listened to: a unit's cgroup is made after it, and the
watch sees that. UnitRemoved of a unit that lives on (a dead scope that logind
looks up again) is sorted out by looking at the directory.
"""

from __future__ import annotations

from typing import Any

from ..model import Source
from .bus import BusError, SystemBus
from .chores import DEADLINE_SEC, Chores
from .confirm import InodeOf, confirm_ended, monotonic_usec
from .registry import Registry

NAME = "org.freedesktop.systemd1"
PATH = "/org/freedesktop/systemd1"
MANAGER = "org.freedesktop.systemd1.Manager"
JOB = "org.freedesktop.systemd1.Job"


class Systemd1:
    """Feeds `registry` with what the system manager says."""

    def __init__(
        self, bus: SystemBus, registry: Registry, inode_of: InodeOf, *, deadline_sec: float = DEADLINE_SEC
    ) -> None:
        self._bus = bus
        self._registry = registry
        self._inode_of = inode_of
        self._chores = Chores("systemd", deadline_sec=deadline_sec)

    async def start(self) -> None:
        """Listens and subscribes; BusError when the bus refuses the former."""
        for member, signature, handler in (
            ("UnitRemoved", "so", self._unit_removed),
            ("JobNew", "uos", self._job_new),
            ("Reloading", "b", self._reloading),
        ):
            await self._bus.on_signal(
                sender=NAME, interface=MANAGER, member=member, path=PATH, signature=signature, handler=handler
            )
        if await self._bus.track(NAME, self._owner_changed):
            self._chores.start(self._subscribe)

    def stop(self) -> None:
        self._chores.stop()

    def _owner_changed(self, owner: str) -> None:
        if owner:
            self._chores.start(self._subscribe)

    def _reloading(self, _path: str, body: list[Any]) -> None:
        [active] = body
        if not active:
            self._chores.start(self._subscribe)

    def _unit_removed(self, _path: str, body: list[Any]) -> None:
        confirm_ended(self._registry, self._inode_of, body[0], Source.SYSTEMD1)

    def _job_new(self, _path: str, body: list[Any]) -> None:
        _job_id, job_path, unit = body
        if self._registry.awaits_ending(unit):
            self._chores.start(lambda: self._look_at_job(job_path, unit))

    async def _look_at_job(self, job_path: str, unit: str) -> None:
        [job_type] = await self._bus.call(
            NAME, job_path, "org.freedesktop.DBus.Properties", "Get", "ss", [JOB, "JobType"]
        )
        if job_type == "stop":
            self._registry.ending(unit, Source.SYSTEMD1, monotonic_usec())

    async def _subscribe(self) -> None:
        """Without a subscriber the manager sends no signals at all."""
        try:
            await self._bus.call(NAME, PATH, MANAGER, "Subscribe")
        except BusError as error:
            if error.name != "org.freedesktop.systemd1.AlreadySubscribed":
                raise
