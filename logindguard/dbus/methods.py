"""The Manager's methods: who may, which arguments fit, and the answer as D-Bus values."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..model import JobInfo, JobKind, Mode
from . import privacy
from .callers import Caller
from .names import CallError, Error
from .polkit import Action, Polkit
from .service import Service
from .table import Later, Method
from .values import Row, row, rows

MAX_RECORDS = 1_000
MAX_QUERIES_OF_USER = 4  # of the history, at once: they wait for each other, and others for them
_RECORD_ID = re.compile(r"[0-9a-f]{1,32}")
_PATH = re.compile(r"(?:/[^/\0]{1,255})+|/")


class Methods:
    def __init__(self, service: Service, polkit: Polkit) -> None:
        self._service = service
        self._polkit = polkit
        self._queries: Counter[int] = Counter()  # by uid

    def table(self) -> list[Method]:
        job = "job:u plan:aa{sv}"
        return [
            Method(name="ListResidues", gives="residues:aa{sv}", handler=self.list_residues),
            Method(
                name="ListReclaims",
                takes="since:t until:t limit:u",
                gives="reclaims:aa{sv}",
                handler=self.list_reclaims,
            ),
            Method(name="GetReclaim", takes="id:s", gives="reclaim:a{sv}", handler=self.get_reclaim),
            Method(name="GetStatistics", gives="statistics:a{sv}", handler=self.get_statistics),
            Method(name="Sweep", takes="options:a{sv}", gives=job, handler=self.sweep),
            Method(name="ReclaimUnit", takes="unit:s options:a{sv}", gives=job, handler=self.reclaim_unit),
            Method(
                name="ReclaimSession", takes="id:s options:a{sv}", gives=job, handler=self.reclaim_session
            ),
            Method(name="CancelJob", takes="job:u", handler=self.cancel_job),
            Method(name="ListJobs", gives="jobs:aa{sv}", handler=self.list_jobs),
            Method(name="Pause", takes="usec:t", handler=self.pause),
            Method(name="Resume", handler=self.resume),
            Method(name="Reload", handler=self.reload),
            Method(name="Restore", gives="restored:u", handler=self.restore),
        ]

    # Reading

    async def list_residues(self, caller: Caller) -> Later:
        found = await self._service.residues()
        details = caller.is_root or not privacy.names_others((each for each, _ in found), caller.uid)
        details = details or await self._polkit.allows(caller, Action.READ_DETAILS)
        shared = self._service.mode is Mode.SHARED
        return Later(lambda: [privacy.residue_rows(found, caller.uid, details=details, shared=shared)])

    async def list_reclaims(self, caller: Caller, since: int, until: int, limit: int) -> Later:
        only_uid = None if await self._polkit.allows(caller, Action.READ_DETAILS) else caller.uid
        most = min(limit or MAX_RECORDS, MAX_RECORDS)
        with self._query(caller):
            found = await self._service.records(since, until, most, only_uid)
        return Later(lambda: [rows(found)])

    async def get_reclaim(self, caller: Caller, record_id: str) -> Later:
        if not _RECORD_ID.fullmatch(record_id):
            raise CallError(Error.NO_SUCH_RECLAIM, "That is not the id of a reclaim.")
        with self._query(caller):
            record = await self._service.record(record_id)
        if not privacy.is_own(record, caller.uid):
            await self._polkit.require(caller, Action.READ_DETAILS)
        return Later(lambda: [row(record)])

    @contextmanager
    def _query(self, caller: Caller) -> Iterator[None]:
        if not caller.is_root and self._queries[caller.uid] >= MAX_QUERIES_OF_USER:
            raise CallError(Error.LIMITS_EXCEEDED, "Too many queries of this user: try again later.")
        self._queries[caller.uid] += 1
        try:
            yield
        finally:
            self._queries[caller.uid] -= 1
            if not self._queries[caller.uid]:
                del self._queries[caller.uid]

    async def get_statistics(self, _caller: Caller) -> list[Any]:
        return [row(await self._service.statistics())]

    # Reclaiming

    async def sweep(self, caller: Caller, options: dict[str, Any]) -> list[Any] | Later:
        dry_run = _options(options, dry_run=bool, path=str)
        path = options.get("path", "")
        if path and (not _PATH.fullmatch(path) or {".", ".."} & set(path.split("/"))):
            raise CallError(Error.INVALID_ARGS, "path must be a cgroup path such as /user.slice.")
        return await self._job(caller, Action.SWEEP, JobKind.SWEEP, path, dry_run=dry_run)

    async def reclaim_unit(self, caller: Caller, unit: str, options: dict[str, Any]) -> list[Any] | Later:
        dry_run = _options(options, dry_run=bool)
        return await self._job(caller, Action.RECLAIM, JobKind.RECLAIM_UNIT, unit, dry_run=dry_run)

    async def reclaim_session(
        self, caller: Caller, session_id: str, options: dict[str, Any]
    ) -> list[Any] | Later:
        dry_run = _options(options, dry_run=bool)
        return await self._job(caller, Action.RECLAIM, JobKind.RECLAIM_SESSION, session_id, dry_run=dry_run)

    async def _job(
        self, caller: Caller, action: Action, kind: JobKind, subject: str, *, dry_run: bool
    ) -> list[Any] | Later:
        if dry_run:
            await self._polkit.require(caller, Action.READ_DETAILS)
            writes = await self._service.plan(kind, subject)
            return Later(lambda: [0, rows(writes)])
        await self._polkit.require(caller, action)
        return [await self._service.start_job(kind, subject, caller.uid), []]

    async def cancel_job(self, caller: Caller, job: int) -> list[Any]:
        if self._service.job(job).uid != caller.uid:
            await self._polkit.require(caller, Action.RECLAIM)
        self._service.cancel_job(job)
        return []

    async def list_jobs(self, caller: Caller) -> list[Any]:
        jobs = self._service.jobs()
        details = all(info.uid == caller.uid for info in jobs)
        details = details or await self._polkit.allows(caller, Action.READ_DETAILS)
        return [[_job_row(info, details=details or info.uid == caller.uid) for info in jobs]]

    # Steering

    async def pause(self, caller: Caller, usec: int) -> list[Any]:
        await self._polkit.require(caller, Action.SWEEP)
        self._service.pause(usec, caller.uid)
        return []

    async def resume(self, caller: Caller) -> list[Any]:
        await self._polkit.require(caller, Action.SWEEP)
        self._service.resume()
        return []

    async def reload(self, caller: Caller) -> list[Any]:
        await self._polkit.require(caller, Action.RELOAD)
        self._service.reload()
        return []

    async def restore(self, caller: Caller) -> list[Any]:
        await self._polkit.require(caller, Action.RELOAD)
        return [await self._service.restore()]


def _options(options: dict[str, Any], **known: type) -> bool:
    """Whether `dry_run` is set; InvalidArgs names an option that is unknown or of a wrong type."""
    for name, value in options.items():
        if name not in known:
            raise CallError(Error.INVALID_ARGS, f"Unknown option {name[:60]!r}.")
        if type(value) is not known[name]:
            raise CallError(Error.INVALID_ARGS, f"Option {name} has a wrong type.")
    return bool(options.get("dry_run", False))


def _job_row(info: JobInfo, *, details: bool) -> Row:
    told = row(info)
    if not details:  # what was asked for may name another user
        for name in ("subject", "uid", "reason"):
            told.pop(name, None)
    return told
