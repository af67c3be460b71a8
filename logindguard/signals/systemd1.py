"""The system manager as a source: units that go, and stop jobs that say so before.

org.freedesktop.systemd1(5). At a natural end no signal comes before the rmdir;
only a stop job (terminate-session, systemctl stop) is announced, 3 to 30 ms
ahead. UnitNew is not listened to: a unit's cgroup is made after it, and the
watch sees that. UnitRemoved of a unit that lives on (a dead scope that logind
looks up again) is sorted out by looking at the directory.

A stop job may be canceled or fail, and then its unit lives on. So nothing counts
as ending for longer than its job is known to run: JobRemoved comes at the end of
each job, and where it could be missed, with the connection or while systemd
executes itself anew, all that was ending is not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..model import Source
from .bus import BusError, SystemBus
from .chores import DEADLINE_SEC
from .confirm import InodeOf, monotonic_usec
from .manager import Handler, Manager
from .registry import Registry

JOB = "org.freedesktop.systemd1.Job"


class Systemd1(Manager):
    NAME = "org.freedesktop.systemd1"
    PATH = "/org/freedesktop/systemd1"
    INTERFACE = "org.freedesktop.systemd1.Manager"
    SOURCE = Source.SYSTEMD1

    def __init__(
        self,
        bus: SystemBus,
        registry: Registry,
        inode_of: InodeOf,
        *,
        changed: Callable[[], None] = lambda: None,
        deadline_sec: float = DEADLINE_SEC,
    ) -> None:
        super().__init__(bus, registry, inode_of, changed=changed, deadline_sec=deadline_sec)
        self._jobs: dict[str, str] = {}  # units by object path: stop jobs, or not known yet to be none

    def signals(self) -> tuple[tuple[str, str, Handler], ...]:
        return (
            ("UnitRemoved", "so", self._unit_removed),
            ("JobNew", "uos", self._job_new),
            ("JobRemoved", "uoss", self._job_removed),
            ("Reloading", "b", self._reloading),
        )

    async def introduce(self) -> None:
        """Subscribes: without a subscriber the manager sends no signals at all."""
        try:
            await self._bus.call(self.NAME, self.PATH, self.INTERFACE, "Subscribe")
        except BusError as error:
            if error.name != "org.freedesktop.systemd1.AlreadySubscribed":
                raise

    def _reloading(self, _path: str, body: list[Any]) -> None:
        [active] = body
        if not active:
            self._chores.start(self.introduce)

    def _unit_removed(self, _path: str, body: list[Any]) -> None:
        self._ended(body[0])

    def _job_new(self, _path: str, body: list[Any]) -> None:
        _job_id, job_path, unit = body
        if self._registry.awaits_ending(unit):
            self._jobs[job_path] = unit
            self._chores.start(lambda: self._look_at_job(job_path, unit))

    def _job_removed(self, _path: str, body: list[Any]) -> None:
        _job_id, job_path, _unit, _result = body
        if (unit := self._jobs.pop(job_path, None)) is not None:
            self._registry.ending_over(unit)

    def lost_sight(self) -> None:
        for unit in self._jobs.values():
            self._registry.ending_over(unit)
        self._jobs.clear()

    async def _look_at_job(self, job_path: str, unit: str) -> None:
        [job_type] = await self._bus.call(
            self.NAME, job_path, "org.freedesktop.DBus.Properties", "Get", "ss", [JOB, "JobType"]
        )
        if job_type != "stop":
            self._jobs.pop(job_path, None)
        elif job_path in self._jobs:  # else it has ended meanwhile
            self._registry.ending(unit, self.SOURCE, monotonic_usec())
