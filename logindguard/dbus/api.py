"""The Manager as a table on the server, and what it broadcasts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import __version__
from ..model import JobInfo, ReclaimRecord
from ..signals.bus import SystemBus
from .methods import Methods
from .names import MANAGER
from .polkit import Polkit
from .server import Server
from .service import Service
from .table import Interface, Method, Property, Signal
from .values import broadcast, text


def _properties(service: Service) -> list[Property]:
    def told(name: str, signature: str, emits: str, value: Callable[[], Any]) -> Property:
        return Property(name=name, signature=signature, emits=emits, value=value)

    return [
        told("Version", "s", "const", lambda: __version__),
        told("Mode", "s", "true", lambda: str(service.mode)),
        told("ModeReason", "s", "true", lambda: text(service.mode_reason)),
        told("Backend", "s", "true", lambda: service.backend_name),
        told("CgroupVersion", "u", "const", lambda: service.cgroup_version),
        told("KernelFeatures", "as", "const", lambda: list(service.kernel_features)),
        told("ConfigFiles", "as", "true", lambda: [text(file) for file in service.config_files]),
        told("Paused", "b", "true", lambda: bool(service.pause_reason)),
        told("PauseReason", "s", "true", lambda: text(service.pause_reason)),
        told("SweepPauseReason", "s", "true", lambda: text(service.sweep_pause_reason)),
        told("DyingCount", "t", "false", lambda: service.dying),
        told("ResidueBytes", "t", "false", lambda: service.residue_bytes),
        told("TeardownsTotal", "t", "false", lambda: service.teardowns_total),
        told("ReclaimsTotal", "a(sst)", "false", lambda: [list(each) for each in service.reclaims_total]),
        told("ReclaimedBytesTotal", "t", "false", lambda: service.freed_bytes_total),
        told("StolenPagesTotal", "t", "false", lambda: service.stolen_pages_total),
        told("LastSweepTimestamp", "t", "false", lambda: service.last_sweep_realtime_usec),
        told("LastSweepUSec", "t", "false", lambda: service.last_sweep_took_usec),
    ]


def manager(service: Service, methods: list[Method]) -> Interface:
    """The table; tests hold dbus/org.logindguard1.Manager.xml against it."""
    return Interface(
        MANAGER,
        *methods,
        *_properties(service),
        Signal(name="Reclaimed", gives="reclaim:a{sv}"),
        Signal(name="JobFinished", gives="job:u state:s"),
        Signal(name="ModeChanged", gives="mode:s reason:s"),
    )


class Api:
    """The Manager on one connection, from `start` to `stop`."""

    def __init__(self, bus: SystemBus, service: Service) -> None:
        self._service = service
        self._polkit = Polkit(bus)
        self._server = Server(bus, manager(service, Methods(service, self._polkit).table()))

    async def start(self) -> None:
        await self._server.start()
        self._service.listen(self)
        self.mode_changed()

    def stop(self) -> None:
        self._service.unlisten(self)
        self._server.stop()
        self._polkit.stop()

    # What is broadcast: anybody can hear it.

    def reclaimed(self, record: ReclaimRecord) -> None:
        self._server.emit("Reclaimed", broadcast(record))

    def job_finished(self, info: JobInfo) -> None:
        self._server.emit("JobFinished", info.id, str(info.state))

    def mode_changed(self) -> None:
        self._server.changed("Mode", "ModeReason", "Backend")
        self._server.emit("ModeChanged", str(self._service.mode), text(self._service.mode_reason))

    def pause_changed(self) -> None:
        self._server.changed("Paused", "PauseReason", "SweepPauseReason")

    def settings_changed(self) -> None:
        self._server.changed("ConfigFiles")
