"""A backend that does what a test says, for what cannot be timed on a real kernel."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from logindguard.kernel.cgroupfs import CgroupGone, Hierarchy
from logindguard.kernel.pins import Explained, Kind, Pin
from logindguard.model import Mode, Outcome, PlannedWrite, Purpose, Reading, Reclaim, Residue, Window

MIB = 1 << 20


@dataclass
class FakeBackend:
    """Residues by path; each window frees `per_window_bytes` and takes `window_sec` on its thread."""

    name: str = "fake"
    mode: Mode = Mode.PRECISE
    reason: str = "a test"
    hierarchy: Hierarchy = field(default_factory=lambda: Hierarchy(2, Path("/nonexistent")))
    state: dict[str, Residue] = field(default_factory=dict)
    per_window_bytes: int = 100 * MIB
    window_sec: float = 0.0
    swap_on: bool = False
    memory_some_percent: float | None = 0.0
    permanent: bool = True
    predicted_write_usec: int = 100
    calls: list[tuple[str, str]] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)

    def hold(self, path: str, dying: int, file_bytes: int, **more: int) -> None:
        inode = len(self.state) + 10
        self.state[path] = Residue(path=path, inode=inode, dying=dying, file_bytes=file_bytes, **more)

    def total_dying(self) -> int:
        self.calls.append(("total", "/"))
        return sum(residue.dying for residue in self.state.values())

    def residues(self) -> list[Residue]:
        self.calls.append(("residues", "/"))
        return [residue for residue in self.state.values() if residue.dying]

    def nearest_live(self, path: str) -> str:
        while path != "/" and path not in self.state:
            path = path.rpartition("/")[0] or "/"
        return path

    def read(self, path: str) -> Reading:
        self.calls.append(("read", path))
        self.threads.add(threading.current_thread().name.partition("_")[0])
        if path not in self.state:
            raise CgroupGone(path)
        return Reading(
            residue=self.state[path],
            live_children=1,
            own_pages=path == "/",
            permanent=self.permanent,
            headroom_bytes=None,
            available_bytes=1 << 30,
            swap_on=self.swap_on,
            refuses_swap=False,
            memory_some_percent=self.memory_some_percent,
            predicted_write_usec=self.predicted_write_usec,
        )

    def explain(self, path: str) -> Explained:
        self.calls.append(("explain", path))
        residue = self.state[path]
        pins = ((Kind.DIRTY, residue.dirty_bytes), (Kind.SHMEM, residue.shmem_bytes))
        return Explained(
            path=path,
            inode=residue.inode,
            dying=residue.dying,
            live_children=1,
            processes=False,
            pins=tuple(Pin(kind=kind, held_bytes=held, file="memory.stat") for kind, held in pins),
        )

    def read_ending(self, path: str) -> Reading:
        return self.read(path)

    def reclaim(self, residue: Residue, plan: Reclaim, should_stop: Callable[[], bool]) -> Window:
        self.calls.append(("reclaim", residue.path))
        time.sleep(self.window_sec)
        before = self.state[residue.path]
        freed = min(self.per_window_bytes, before.clean_unmapped_bytes)
        left_bytes = before.file_bytes - freed
        dying = before.dying if left_bytes else 0
        after = self.state[residue.path] = replace(before, file_bytes=left_bytes, dying=dying)
        outcome = Outcome.RELEASED if dying == 0 else Outcome.PARTIAL if freed else Outcome.UNCHANGED
        return Window(
            outcome=outcome,
            reason="as told",
            before=before,
            after=after,
            freed_bytes=freed,
            writes=1,
            shielded=1,
        )

    def plan(self, residue: Residue, plan: Reclaim) -> list[PlannedWrite]:
        self.calls.append(("plan", residue.path))
        return [
            PlannedWrite(
                path=residue.path,
                file="memory.reclaim",
                value=str(plan.max_bytes),
                purpose=Purpose.RECLAIM,
            )
        ]

    def reclaim_ending(self, residue: Residue, plan: Reclaim, should_stop: Callable[[], bool]) -> Window:
        return self.reclaim(residue, plan, should_stop)

    def reclaimed(self) -> list[str]:
        return [path for what, path in self.calls if what == "reclaim"]
