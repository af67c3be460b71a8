"""The one vocabulary: what was heard, read, decided and done.

Plain frozen values, no I/O. Times are CLOCK_MONOTONIC microseconds unless a
name says `realtime`; sizes are bytes; paths are cgroup paths from the root of
the hierarchy ("/user.slice/user-1000.slice"), the root itself being "/".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

UNNAMED = "teardowns_unnamed"  # in the context of a record: how many more there were than it names


class Mode(StrEnum):
    """How much the guard may do on this machine; always shown with its reason."""

    PRECISE = "precise"  # v2 with shield: nothing live is reclaimed
    SHARED = "shared"  # v1: leftovers cost siblings page cache
    OBSERVE = "observe"  # counts only: a self-healing kernel, or no backend


class Source(StrEnum):
    """Who told us of a teardown."""

    LOGIN1 = "login1"
    SYSTEMD1 = "systemd1"
    CGROUP_WATCH = "cgroup-watch"
    PAM = "pam"  # the hook at close_session
    STOP_POST = "stop-post"  # the hook in ExecStopPost=


SOURCE_WORDS: Mapping[Source, str] = {
    Source.LOGIN1: "logind",
    Source.SYSTEMD1: "systemd",
    Source.CGROUP_WATCH: "the cgroup tree",
    Source.PAM: "the PAM hook",
    Source.STOP_POST: "the hook in ExecStopPost=",
}


class Phase(StrEnum):
    """Where a teardown stands when it is heard of."""

    ENDING = "ending"  # a stop job was queued: the cgroup is still there
    ENDED = "ended"  # the cgroup is gone


class Way(StrEnum):
    """When a reclaim ran, seen from the rmdir."""

    BEFORE = "before"
    AFTER = "after"
    SWEEP = "sweep"


class Outcome(StrEnum):
    """How a reclaim ended."""

    RELEASED = "released"  # nothing dying is left under the target
    PARTIAL = "partial"  # less dying or less residue than before, some left
    UNCHANGED = "unchanged"  # the kernel gave nothing back
    MAPPED_KEPT = "mapped-kept"  # stopped before pages that others map
    SKIPPED = "skipped"  # nothing was written, the reason says why
    GONE = "gone"  # the target was removed meanwhile
    FAILED = "failed"  # the kernel refused, the reason says how


@dataclass(frozen=True, slots=True, kw_only=True)
class Teardown:
    """One cgroup that systemd is removing or has removed.

    `inode` identifies it (kernfs inodes are never reused on 64-bit kernels;
    unit names, session ids and paths are). `parent` is the path it hung under.
    """

    unit: str
    path: str
    inode: int
    phase: Phase
    source: Source
    heard_usec: int
    session_id: str | None = None
    uid: int | None = None
    service: str | None = None  # PAM service that opened the session: sshd, cron, login

    @property
    def parent(self) -> str:
        return self.path.rpartition("/")[0] or "/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Residue:
    """What dying memcgs still hold directly under one live parent.

    Every `_bytes` is parent minus its live children, from memory.stat, never
    below 0. `file_bytes` includes shmem, as in the kernel's own counter. cgroup
    v1 keeps no count per cgroup: there `dying` is that of the whole hierarchy.
    """

    path: str
    inode: int
    dying: int
    file_bytes: int = 0
    mapped_bytes: int = 0
    dirty_bytes: int = 0
    writeback_bytes: int = 0
    shmem_bytes: int = 0
    anon_bytes: int = 0

    @property
    def clean_unmapped_bytes(self) -> int:
        """Page cache that a reclaim can take without I/O and without harm to who maps it."""
        return max(
            0,
            self.file_bytes - self.shmem_bytes - self.mapped_bytes - self.dirty_bytes - self.writeback_bytes,
        )


# Live cgroups under one parent that a window shields. With more of them it would hold the ledger's lock for
# seconds, and so anybody who can make cgroups by the thousand could keep others' windows waiting.
MAX_SHIELDED = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All that a decision about one residue rests on, read at one moment."""

    residue: Residue
    live_children: int
    own_pages: bool  # the target may hold pages of its own, which nothing shields
    permanent: bool  # nobody removes it, so a long write holds up no rmdir
    headroom_bytes: int | None  # to the nearest memory.max or .high, its own or an ancestor's
    available_bytes: int  # host
    swap_on: bool
    refuses_swap: bool  # memory.reclaim takes swappiness=0
    memory_some_percent: float | None  # PSI, None where the kernel does not measure it
    predicted_write_usec: int  # kernel time of the smallest write
    read_usec: int = 0  # CPU time that this reading took: memory.stat of a sick host takes up to a second
    shields: bool = True  # live cgroups beside the dying ones can be shielded
    live_bytes: int = 0  # anon and file of live cgroups that a reclaim could take, where none can be shielded
    gave_bytes: int = 0  # by dying memcgs here of late, where none can be shielded
    lost_bytes: int = 0  # by live ones meanwhile, at most
    usage_bytes: int = 0  # memory.current, which does not lag as memory.stat does; of an ending cgroup only
    may_forbid_swap: bool = False  # memory.swap.max of the target can be 0 meanwhile
    spares_mapped: bool = True  # a reclaim can be stopped short of the mapped pages of dying memcgs
    mapped_lost_bytes: int = 0  # mapped share that went with earlier windows here, forgiven little by little


@dataclass(frozen=True, slots=True, kw_only=True)
class Reclaim:
    """Open one window: at most so many bytes, for so long, in writes of about so much kernel time."""

    max_bytes: int
    keep_mapped: bool
    window_usec: int
    write_usec: int
    reason: str
    forbid_swap: bool = False  # by memory.swap.max of the target, which is about to be removed
    predicted_write_usec: int = 0  # kernel time of the smallest write


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Not now; the sweep comes back."""

    reason: str
    keeps_mapped: bool = False  # because the rest is mapped by live processes
    outside: bool = False  # because of the host, or of what lives beside it: it says nothing of the residue
    soon: bool = False  # it may be otherwise in a moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """Not this one, until something about it changes."""

    reason: str


Decision = Reclaim | Wait | Skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What one shielded window did. Pages are exact by pgsteal; the stolen ones an upper bound."""

    outcome: Outcome
    reason: str
    before: Residue
    after: Residue
    freed_bytes: int = 0
    stolen_pages: int = 0
    writes: int = 0
    shielded: int = 0
    cpu_usec: int = 0
    wall_usec: int = 0
    longest_write_usec: int = 0
    put_off: bool = False  # the rest is for a quiet moment, which may come soon


@dataclass(frozen=True, slots=True, kw_only=True)
class ReclaimRecord:
    """One reclaim, or one that was decided against: the same in journal, signal, history, metrics."""

    id: str
    realtime_usec: int
    way: Way
    target: str
    target_inode: int
    outcome: Outcome
    reason: str
    mode: Mode
    teardowns: tuple[Teardown, ...] = ()
    dying_before: int = 0
    dying_after: int = 0
    residue_before_bytes: int = 0
    freed_bytes: int = 0
    stolen_pages: int = 0  # upper bound of what live cgroups lost: pgsteal of live children
    mapped_kept_bytes: int = 0
    writes: int = 0
    shielded: int = 0  # live cgroups whose memory.min was raised for it
    cpu_usec: int = 0
    wall_usec: int = 0
    longest_write_usec: int = 0
    release_usec: int | None = None  # from the last rmdir heard to the end of the reclaim
    context: dict[str, str] = field(default_factory=dict)

    @property
    def sources(self) -> tuple[str, ...]:
        """Who told of it: those of its teardowns in the order heard, or `sweep`, which goes and looks."""
        if self.way is Way.SWEEP:
            return (Way.SWEEP,)
        return tuple(dict.fromkeys(teardown.source for teardown in self.teardowns))

    @property
    def unnamed(self) -> int:
        """Teardowns that it counts and does not name."""
        return int(self.context.get(UNNAMED, 0))


class Booking(NamedTuple):
    """What of a record says who left what: read in half the time, since a history has 100,000 of them."""

    realtime_usec: int
    way: Way
    target: str
    target_inode: int
    outcome: Outcome
    reason: str
    mode: Mode
    dying_before: int
    dying_after: int
    freed_bytes: int
    writes: int
    teardowns: tuple[Teardown, ...]
    unnamed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """How things stood at one moment; totals are since the start of the service."""

    realtime_usec: int
    mode: Mode
    dying: int
    residue_bytes: int
    teardowns_total: int
    freed_bytes_total: int
    stolen_pages_total: int
    cpu_usec_total: int


class JobKind(StrEnum):
    """What was asked for."""

    SWEEP = "sweep"
    RECLAIM_UNIT = "reclaim-unit"
    RECLAIM_SESSION = "reclaim-session"


class JobState(StrEnum):
    RUNNING = "running"  # or waiting for its turn
    DONE = "done"
    FAILED = "failed"
    CANCELED = "canceled"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInfo:
    """One reclaim that somebody asked for, over all the parents that it reaches. Times are realtime."""

    id: int
    kind: JobKind
    subject: str  # unit, session or path; empty: everything
    uid: int  # who asked
    started_usec: int
    state: JobState = JobState.RUNNING
    finished_usec: int | None = None
    dying_before: int = 0
    dying_after: int = 0
    freed_bytes: int = 0
    stolen_pages: int = 0
    outcome: Outcome | None = None  # of the whole, once there is one
    reason: str = ""


class Purpose(StrEnum):
    """Why a value is written."""

    SHIELD = "shield"
    RECLAIM = "reclaim"
    RESTORE = "restore"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedWrite:
    """One write to a control file that a reclaim would make as things stand now."""

    path: str
    file: str
    value: str
    purpose: Purpose
