"""What the interface needs of the program: plain values, and CallError where something cannot be done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ..model import JobInfo, JobKind, Mode, PlannedWrite, ReclaimRecord, Residue


class Listener(Protocol):
    """Who hears of what happens."""

    def reclaimed(self, record: ReclaimRecord) -> None: ...

    def job_finished(self, info: JobInfo) -> None: ...

    def mode_changed(self) -> None: ...

    def pause_changed(self) -> None: ...

    def settings_changed(self) -> None: ...


class Service(Protocol):
    """Properties answer at once, from what is known; methods may take their time."""

    @property
    def mode(self) -> Mode: ...
    @property
    def mode_reason(self) -> str: ...
    @property
    def backend_name(self) -> str: ...
    @property
    def cgroup_version(self) -> int: ...
    @property
    def kernel_features(self) -> Sequence[str]: ...
    @property
    def config_files(self) -> Sequence[str]: ...
    @property
    def pause_reason(self) -> str: ...
    @property
    def sweep_pause_reason(self) -> str: ...
    @property
    def dying(self) -> int: ...
    @property
    def residue_bytes(self) -> int: ...
    @property
    def teardowns_total(self) -> int: ...
    @property
    def reclaims_total(self) -> Sequence[tuple[str, str, int]]: ...
    @property
    def freed_bytes_total(self) -> int: ...
    @property
    def stolen_pages_total(self) -> int: ...
    @property
    def last_sweep_realtime_usec(self) -> int: ...
    @property
    def last_sweep_took_usec(self) -> int: ...

    def listen(self, listener: Listener) -> None: ...
    def unlisten(self, listener: Listener) -> None: ...

    async def residues(self) -> list[tuple[Residue, Mapping[str, object]]]:
        """Each with what else its row says."""

    async def records(
        self, since_usec: int, until_usec: int, limit: int, only_uid: int | None
    ) -> list[ReclaimRecord]:
        """Newest first; those that are all `only_uid`'s where that is given. HistoryUnavailable."""

    async def record(self, record_id: str) -> ReclaimRecord:
        """NoSuchReclaim, HistoryUnavailable."""

    async def statistics(self) -> Mapping[str, object]: ...

    async def start_job(self, kind: JobKind, subject: str, uid: int) -> int:
        """NoSuchUnit, NoSuchSession, Paused, NotSupported, LimitsExceeded."""

    async def plan(self, kind: JobKind, subject: str) -> list[PlannedWrite]:
        """NoSuchUnit, NoSuchSession, NotSupported."""

    def job(self, job: int) -> JobInfo:
        """NoSuchJob."""

    def jobs(self) -> list[JobInfo]: ...
    def cancel_job(self, job: int) -> None: ...

    def pause(self, duration_usec: int, uid: int) -> None:
        """InvalidArgs, Failed."""

    def resume(self) -> None: ...

    def reload(self) -> None:
        """InvalidConfig."""

    async def restore(self) -> int:
        """RestoreFailed."""
