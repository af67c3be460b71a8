"""The service as seen from the bus, with canned answers, on a thread of its own.

For what the real one cannot be made to say at will. tests/native/test_ctl.py holds the verbs to the
real one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ClassVar

from dbus_next import Variant

from tests.bus.fakes import Peer

NAME, PATH, INTERFACE = "org.logindguard1", "/org/logindguard1", "org.logindguard1.Manager"
NOW_USEC = 1_767_261_600_000_000  # Thu 2026-01-01 10:00:00 UTC
SEC = 1_000_000
GIB, MIB, KIB = 1 << 30, 1 << 20, 1 << 10

_SIGNATURES = {bool: "b", int: "t", str: "s"}


def variants(row: dict[str, Any]) -> dict[str, Variant]:
    return {name: _variant(value) for name, value in row.items()}


def _variant(value: Any) -> Variant:
    if isinstance(value, dict):
        return Variant("a{ss}", value)
    if isinstance(value, list):
        if value and isinstance(value[0], str):
            return Variant("as", value)
        return Variant("aa{sv}", [variants(row) for row in value])
    return Variant(_SIGNATURES[type(value)], value)


def residue(path: str, dying: int, file_bytes: int, **more: Any) -> dict[str, Any]:
    kinds = {f"{kind}_bytes": 0 for kind in ("mapped", "dirty", "writeback", "shmem", "anon")}
    return {
        "path": path,
        "inode": 4711,
        "dying": dying,
        "file_bytes": file_bytes,
        **kinds,
        "tries": 1,
        **more,
    }


def teardown(unit: str, path: str, **more: Any) -> dict[str, Any]:
    known = {"inode": 815, "phase": "ended", "source": "systemd1", "heard_usec": 12_000_000}
    return {"unit": unit, "path": f"{path}/{unit}", **known, **more}


def record(
    id_: str,
    ago_sec: int,
    way: str,
    target: str,
    outcome: str,
    dying: tuple[int, int],
    freed: int,
    **more: Any,
) -> dict[str, Any]:
    return {
        "id": id_.ljust(32, "0"),
        "realtime_usec": NOW_USEC - ago_sec * SEC,
        "way": way,
        "target": target,
        "target_inode": 4711,
        "outcome": outcome,
        "reason": "nothing more can be released",
        "mode": "precise",
        "teardowns": [],
        "dying_before": dying[0],
        "dying_after": dying[1],
        "residue_before_bytes": freed,
        "freed_bytes": freed,
        "stolen_pages": 0,
        "mapped_kept_bytes": 0,
        "writes": 3,
        "shielded": 2,
        "cpu_usec": 2100,
        "wall_usec": 12_345,
        "longest_write_usec": 1900,
        "context": {},
        **more,
    }


ALICE = "/user.slice/user-61001.slice"
LONG = f"{ALICE}/user@61001.service/app.slice/app-org.example.Something.slice"
RESIDUES = [
    residue("/user.slice", 3, 2 * MIB, reason="is tried at the next sweep"),
    residue(
        ALICE,
        11,
        30 * MIB,
        uid=61001,
        dirty_bytes=4 * MIB,
        mapped_bytes=512 * KIB,
        reason="waits for writeback",
        next_usec=NOW_USEC + 4 * SEC,
    ),
    residue(LONG, 1, 64 * KIB, uid=61001, shmem_bytes=64 * KIB, reason="pinned by shared memory"),
    residue("/system.slice", 1234, GIB + 200 * MIB, anon_bytes=12 * KIB, next_usec=NOW_USEC - SEC),
]
RECORDS = [  # newest first
    record("9f3c0a", 62, "sweep", "/user.slice", "partial", (9, 3), 5_452_595),
    record(
        "9f3cbb",
        182,
        "after",
        ALICE,
        "released",
        (2, 0),
        4_900_000,
        release_usec=490_000,
        teardowns=[
            teardown("session-67.scope", ALICE, session_id="67", uid=61001, service="sshd"),
        ],
    ),
    record(
        "1b22",
        7200,
        "after",
        "/user.slice",
        "failed",
        (5, 5),
        0,
        reason="memory.reclaim: Permission denied",
        teardowns=[
            teardown("user@61002.service", "/user.slice/user-61002.slice", uid=61002),
            teardown("user-61002.slice", "/user.slice", uid=61002),
        ],
    ),
    record(
        "c0ffee",
        400 * 86_400,
        "before",
        "/system.slice/cron-backup.service",
        "skipped",
        (0, 0),
        0,
        teardowns=[teardown("cron-backup.service", "/system.slice")],
    ),
]
PLAN = [
    {"path": "/user.slice/user-61001.slice", "file": "memory.min", "value": "83886080", "purpose": "shield"},
    {"path": "/user.slice", "file": "memory.reclaim", "value": "4194304", "purpose": "reclaim"},
    {"path": "/user.slice/user-61001.slice", "file": "memory.min", "value": "0", "purpose": "restore"},
]
STATISTICS = {
    "teardowns": [{"trigger": "ssh login", "count": 4300}, {"trigger": "cron job", "count": 21}],
    "reclaims": [{"way": "after", "outcome": "released", "count": 1200}],
    "freed": [{"way": "after", "bytes": 5 * GIB}],
    "stolen_pages_total": 0,
    "paused_by": [{"why": "request", "usec": 2 * SEC}],
}
PROPERTIES = {
    "Version": Variant("s", "0.1.0"),
    "Mode": Variant("s", "precise"),
    "ModeReason": Variant("s", "memory.reclaim with a shield of memory.min"),
    "Backend": Variant("s", "v2"),
    "Paused": Variant("b", False),
    "PauseReason": Variant("s", ""),
    "CgroupVersion": Variant("u", 2),
    "KernelFeatures": Variant("as", ["memory_reclaim", "recursiveprot"]),
    "ConfigFiles": Variant("as", ["/etc/logindguard/config.yaml"]),
    "DyingCount": Variant("t", 1249),
    "ResidueBytes": Variant("t", GIB + 232 * MIB),
    "TeardownsTotal": Variant("t", 4321),
    "ReclaimsTotal": Variant(
        "a(sst)", [["before", "released", 12], ["after", "released", 1200], ["sweep", "partial", 9]]
    ),
    "ReclaimedBytesTotal": Variant("t", 5 * GIB),
    "StolenPagesTotal": Variant("t", 0),
    "LastSweepTimestamp": Variant("t", NOW_USEC - 182 * SEC),
    "LastSweepUSec": Variant("t", 1_234_567),
}


class FakeService(Peer):
    """Answers as the agreed interface says; `job_states` is what a job says of itself, one a call."""

    NAME: ClassVar[str] = NAME

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self.properties = dict(PROPERTIES)
        self.residues = RESIDUES
        self.sweep_paused = ""
        self.records = RECORDS
        self.bodies: list[tuple[str, list[Any]]] = []
        self.flags: list[int] = []
        self.job_states: list[dict[str, Any]] = []

    def answer(self, message: Any) -> tuple[str, list[Any]] | None:
        self.bodies.append((message.member, message.body))
        self.flags.append(int(message.flags))
        match message.member:
            case "GetAll":
                return "a{sv}", [self.properties]
            case "Get":
                return "v", [self.properties[message.body[1]]]
            case "ListResidues":
                return "aa{sv}", [[variants(row) for row in self.residues]]
            case "ListReclaims":
                since, until, limit = message.body
                found = [
                    row
                    for row in self.records
                    if row["realtime_usec"] >= since and (not until or row["realtime_usec"] <= until)
                ]
                return "aa{sv}", [[variants(row) for row in found[: limit or None]]]
            case "GetReclaim":
                found = [row for row in self.records if row["id"] == message.body[0]]
                return ("a{sv}", [variants(found[0])]) if found else None
            case "GetStatistics":
                statistics = {"sweep_paused": self.sweep_paused, **STATISTICS}
                return "a{sv}", [variants(statistics)]
            case "Sweep" | "ReclaimUnit" | "ReclaimSession":
                dry = "dry_run" in message.body[-1]
                return "uaa{sv}", [0 if dry else 7, [variants(row) for row in PLAN] if dry else []]
            case "ListJobs":
                row = self.job_states.pop(0) if len(self.job_states) > 1 else self.job_states[0]
                return "aa{sv}", [[variants({"id": 7, **row})]]
            case "Restore":
                return "u", [2]
            case "Pause" | "Resume" | "Reload" | "CancelJob":
                return "", []
        return None

    def signal(self, member: str, signature: str, *body: Any) -> None:
        self.emit(INTERFACE, member, PATH, signature, *body)


class Running:
    """A FakeService on its own loop and thread."""

    def __init__(self, address: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.service: FakeService = self._run(FakeService.connect(address))

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def do(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call it on the service's loop, and wait for its end."""
        done: Future[None] = Future()

        def call() -> None:
            function(*arguments)
            done.set_result(None)

        self._loop.call_soon_threadsafe(call)
        done.result(20)

    def disown(self) -> None:
        self._run(self.service.disown(NAME))

    def close(self) -> None:
        self.do(self.service.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()
