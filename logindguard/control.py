"""What tools may ask of a running guard, answered in plain values: the other side of the D-Bus interface."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from .config_file import ConfigError
from .dbus.names import CallError, Error
from .dbus.privacy import is_own
from .dbus.service import Listener
from .guard import Guard
from .jobs import Jobs, TooManyJobs
from .kernel import units
from .kernel.cgroupfs import CgroupGone, KernelError, within
from .kernel.ledger import Ledger, LedgerError
from .kernel.shield import restore
from .model import JobInfo, JobKind, Mode, PlannedWrite, ReclaimRecord, Residue, Teardown
from .overview import Overview
from .pause import Pause, PauseError
from .plan import plan
from .readings import Readings
from .recent import Recent
from .reclaimer import Reclaimer, now_usec
from .record.history import History, HistoryUnavailable
from .sweep import Sweep

MAX_QUERIES = 16  # of the history, waiting or running
QUERY_SEC = 5.0
MAX_ROWS = 5_000  # records and their teardowns in one answer
OWN_QUERY_SEC = 1.0  # of a user that may see but its own: those can lie among many

T = TypeVar("T")
log = logging.getLogger(__name__)


class Control(Overview):
    """Implements dbus.service.Service; see there. What blocks runs on threads of its own."""

    def __init__(
        self,
        reclaimer: Reclaimer,
        guard: Guard,
        sweep: Sweep,
        pause: Pause,
        *,
        directory: Path,
        roots: tuple[str, ...],
        reload: Callable[[], None],
        config_files: Callable[[], Sequence[Path]],
        history: History | None = None,
    ) -> None:
        self._tools = ThreadPoolExecutor(1, "tools")
        self._reader = ThreadPoolExecutor(1, "history")
        readings = Readings(reclaimer.backend, self._tools)
        super().__init__(reclaimer.backend, guard, sweep, pause, readings, config_files)
        self._reclaimer = reclaimer
        self._ledger = Ledger(directory)
        self._roots = roots
        self._reload = reload
        self._history = history or History()
        self._queries = 0
        self._recent = Recent()
        self._jobs = Jobs(sweep, self._job_finished)
        self._listeners: list[Listener] = []

    async def stop(self) -> None:
        """Ends what is running; returns when its threads have ended."""
        self._jobs.stop()
        self._readings.stop()
        self._refaults.stop()
        for executor in (self._tools, self._reader):
            await asyncio.to_thread(executor.shutdown, cancel_futures=True)

    # What is told from inside

    def heard(self, teardown: Teardown) -> None:
        self._recent.heard(teardown)
        self._totals.heard(teardown)

    def book(self, record: ReclaimRecord) -> None:
        """Counts a record and tells of it."""
        self._totals.book(record)
        self._refaults.reclaimed(record)
        self._recent.records.append(record)
        for listener in self._listeners:
            listener.reclaimed(record)

    def pause_changed(self) -> None:
        self.note_pauses()
        for listener in self._listeners:
            listener.pause_changed()

    def settings_changed(self) -> None:
        for listener in self._listeners:
            listener.settings_changed()

    def _job_finished(self, info: JobInfo) -> None:
        for listener in self._listeners:
            listener.job_finished(info)

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def unlisten(self, listener: Listener) -> None:
        if listener in self._listeners:
            self._listeners.remove(listener)

    # Residues and records

    async def residues(self) -> list[tuple[Residue, Mapping[str, object]]]:
        try:
            snapshot = await self._readings.fresh()
        except (KernelError, OSError) as error:
            raise CallError(Error.FAILED, f"The residues cannot be read: {error}.") from error
        offset_usec = time.time_ns() // 1000 - now_usec()
        found: list[tuple[Residue, Mapping[str, object]]] = []
        for residue in snapshot.residues:
            standing = self._sweep.standing(residue.inode)
            stand = standing.stand
            more: dict[str, object] = {
                "tries": stand.tries,
                "rung": str(stand.rung),
                "reason": standing.reason,
            }
            if stand.next_usec:
                more["next_usec"] = stand.next_usec + offset_usec
            if residue.inode in snapshot.unread:
                more["unread"] = True  # its bytes were not read, which takes long here
            found.append((residue, more))
        return found

    async def records(
        self, since_usec: int, until_usec: int, limit: int, only_uid: int | None
    ) -> list[ReclaimRecord]:
        def wanted(record: ReclaimRecord) -> bool:
            return only_uid is None or is_own(record, only_uid)

        max_sec = QUERY_SEC if only_uid is None else OWN_QUERY_SEC
        found = await self._ask_history(
            lambda: self._history.find(
                since_usec=since_usec,
                until_usec=until_usec,
                limit=limit,
                max_rows=MAX_ROWS,
                wanted=wanted,
                max_sec=max_sec,
            )
        )
        if found.corrupt:
            log.info("The history has %d entries that are no records; they are left out.", found.corrupt)
        # The journal may not have taken the last ones in yet.
        lately = [
            record
            for record in self._recent.records
            if record.realtime_usec >= since_usec
            and (not until_usec or record.realtime_usec <= until_usec)
            and wanted(record)
        ]
        all_of = {record.id: record for record in [*found.records, *lately]}.values()
        return sorted(all_of, key=lambda record: record.realtime_usec, reverse=True)[:limit]

    async def record(self, record_id: str) -> ReclaimRecord:
        for record in self._recent.records:
            if record.id == record_id:
                return record
        found = await self._ask_history(lambda: self._history.get(record_id))
        if found is None:
            raise CallError(Error.NO_SUCH_RECLAIM, "The journal has no reclaim of that id.")
        return found

    async def _ask_history(self, query: Callable[[], T]) -> T:
        if self._queries >= MAX_QUERIES:
            raise CallError(Error.LIMITS_EXCEEDED, "Too many queries of the history: try again later.")
        self._queries += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reader, query)
        except HistoryUnavailable as error:
            raise CallError(Error.HISTORY_UNAVAILABLE, str(error)) from error
        finally:
            self._queries -= 1

    # Reclaims

    async def start_job(self, kind: JobKind, subject: str, uid: int) -> int:
        if self.mode is Mode.OBSERVE:
            raise CallError(Error.NOT_SUPPORTED, f"Nothing is reclaimed on this machine: {self.mode_reason}.")
        if reason := self._pause.details:
            raise CallError(Error.PAUSED, f"Nothing is reclaimed: {reason}.")
        wants = await self._wants(kind, subject)
        try:
            return self._jobs.start(kind, subject, uid, wants)
        except TooManyJobs as error:
            raise CallError(Error.LIMITS_EXCEEDED, str(error)) from error

    async def plan(self, kind: JobKind, subject: str) -> list[PlannedWrite]:
        if self.mode is Mode.OBSERVE:
            raise CallError(Error.NOT_SUPPORTED, f"Nothing is reclaimed on this machine: {self.mode_reason}.")
        wants = await self._wants(kind, subject)
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._tools, plan, self._backend, self._reclaimer.config, wants
            )
        except (KernelError, OSError) as error:
            raise CallError(Error.FAILED, f"The residues cannot be read: {error}.") from error

    def job(self, job: int) -> JobInfo:
        info = self._jobs.get(job)
        if info is None:
            raise CallError(Error.NO_SUCH_JOB, "There is no such job, or it ended long ago.")
        return info

    def jobs(self) -> list[JobInfo]:
        return self._jobs.list()

    def cancel_job(self, job: int) -> None:
        self._jobs.cancel(job)  # one that has ended meanwhile is as good as cancelled

    async def _wants(self, kind: JobKind, subject: str) -> Callable[[str], bool]:
        """Picks the live parents that a request means, by path."""
        if kind is JobKind.SWEEP:
            await self._check_path(subject or "/")
            return lambda path: within(path, subject or "/")
        missing = Error.NO_SUCH_UNIT if kind is JobKind.RECLAIM_UNIT else Error.NO_SUCH_SESSION
        unit = subject if kind is JobKind.RECLAIM_UNIT else units.scope_of(subject)
        if unit is None or not units.is_unit(unit):
            raise CallError(missing, "That is no valid name.")
        try:
            live, parent = await asyncio.get_running_loop().run_in_executor(self._tools, self._places, unit)
        except KernelError as error:
            raise CallError(Error.FAILED, f"The cgroup tree cannot be searched: {error}.") from error
        if not live and parent is None:
            raise CallError(missing, f"No cgroup of {unit} is there, and none ended lately.")
        return lambda path: path == parent or any(within(path, each) for each in live)

    async def _check_path(self, path: str) -> None:
        """A subtree that is misspelt would be found swept."""
        hierarchy = self._backend.hierarchy
        try:
            (await asyncio.get_running_loop().run_in_executor(self._tools, hierarchy.open, path)).close()
        except CgroupGone as error:
            raise CallError(Error.INVALID_ARGS, f"There is no cgroup {path}.") from error
        except KernelError as error:
            raise CallError(Error.FAILED, f"{path} cannot be opened: {error}.") from error
        if self._roots and not any(within(path, root) or within(root, path) for root in self._roots):
            raise CallError(Error.INVALID_ARGS, f"The settings leave {path} alone: it is not below roots.")

    def _places(self, unit: str) -> tuple[list[str], str | None]:
        """Where the unit lives, and where what it left lately hangs."""
        live = units.find(self._backend.hierarchy, self._roots, unit)
        ended = self._recent.place(unit)
        try:
            return live, None if ended is None else self._backend.nearest_live(ended)
        except CgroupGone:  # none of ours
            return live, None

    # Steering

    def pause(self, duration_usec: int, uid: int) -> None:
        try:
            self._pause.pause(duration_usec, uid)
        except ValueError as error:
            raise CallError(Error.INVALID_ARGS, f"{error}.".capitalize()) from error
        except PauseError as error:
            raise CallError(Error.FAILED, f"{error}.") from error

    def resume(self) -> None:
        try:
            self._pause.resume()
        except PauseError as error:
            raise CallError(Error.FAILED, f"{error}.") from error

    def reload(self) -> None:
        try:
            self._reload()
        except ConfigError as error:
            raise CallError(Error.INVALID_CONFIG, str(error)) from error

    async def restore(self) -> int:
        try:
            restored = await asyncio.get_running_loop().run_in_executor(
                self._tools, restore, self._backend.hierarchy, self._ledger
            )
        except LedgerError as error:
            raise CallError(Error.RESTORE_FAILED, f"memory.min was not put back: {error}.") from error
        return restored.restored
