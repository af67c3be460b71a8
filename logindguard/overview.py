"""How a running guard stands, as tools read it: answered at once, from what is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from . import __version__
from .guard import Guard
from .kernel.backend import Backend
from .metrics import Figures
from .model import Mode, Way
from .pause import Pause
from .readings import Readings
from .reclaimer import now_usec
from .refaults import Refaults, refaulted_pages
from .statistics import BOUNDS_USEC, Durations, Statistics, Stopwatch
from .sweep import Sweep
from .text import span


class Overview:
    """The properties of dbus.service.Service; see there."""

    def __init__(
        self,
        backend: Backend,
        guard: Guard,
        sweep: Sweep,
        pause: Pause,
        readings: Readings,
        config_files: Callable[[], Sequence[Path]],
    ) -> None:
        self._backend = backend
        self._guard = guard
        self._sweep = sweep
        self._pause = pause
        self._readings = readings
        self._config_files = config_files
        self._totals = Statistics()
        self._refaults = Refaults(refaulted_pages)
        self._held, self._waits = Stopwatch(), Stopwatch()

    @property
    def totals(self) -> Statistics:
        return self._totals

    @property
    def mode(self) -> Mode:
        return self._backend.mode

    @property
    def mode_reason(self) -> str:
        return self._backend.reason

    @property
    def backend_name(self) -> str:
        return self._backend.name

    @property
    def cgroup_version(self) -> int:
        return self._backend.hierarchy.version

    @property
    def kernel_features(self) -> Sequence[str]:
        features = getattr(self._backend, "features", None)  # a backend that only counts has none
        return features.words() if features is not None else ()

    @property
    def config_files(self) -> Sequence[str]:
        return [str(file) for file in self._config_files()]

    @property
    def pause_reason(self) -> str:
        return self._pause.reason

    @property
    def sweep_pause_reason(self) -> str:
        return self._sweep.paused

    @property
    def harm(self) -> str:
        """Why no sweep may go on: what one took before was read again. Empty where it may."""
        return self._refaults.backoff.held(now_usec())

    @property
    def dying(self) -> int:
        latest = self._readings.nudge()
        return latest.dying if latest.taken_usec else self._sweep.dying

    @property
    def residue_bytes(self) -> int:
        return self._readings.nudge().file_bytes

    @property
    def teardowns_total(self) -> int:
        return self._guard.teardowns_total

    @property
    def reclaims_total(self) -> Sequence[tuple[str, str, int]]:
        return [(str(way), str(outcome), n) for way, outcome, n in self._totals.by_way_and_outcome()]

    @property
    def freed_bytes_total(self) -> int:
        return self._totals.freed_bytes

    @property
    def stolen_pages_total(self) -> int:
        return self._totals.stolen_pages

    @property
    def last_sweep_realtime_usec(self) -> int:
        return self._sweep.last_realtime_usec

    @property
    def last_sweep_took_usec(self) -> int:
        return self._sweep.last_took_usec

    async def statistics(self) -> Mapping[str, object]:
        """All totals and counts; nothing in it names a user."""
        totals, latest = self._totals, await self._readings.fresh()
        self.note_pauses()
        return {
            "teardowns_total": self._guard.teardowns_total,
            "teardowns_shed_total": self._guard.shed_total,
            "reclaims": [
                {"way": way, "outcome": outcome, "count": count}
                for way, outcome, count in self.reclaims_total
            ],
            "teardowns": [
                {"trigger": trigger, "count": count} for trigger, count in sorted(totals.teardowns.items())
            ],
            "durations": [
                {"way": str(way)} | _counts(durations) for way, durations in totals.durations.items()
            ],
            "freed": [{"way": str(way), "bytes": totals.freed_by_way[way]} for way in Way],
            "freed_bytes_total": totals.freed_bytes,
            "stolen_pages_total": totals.stolen_pages,
            "refaulted_pages_total": self._refaults.total_pages,
            "writes_total": totals.writes,
            "cpu_usec_total": totals.cpu_usec,
            "longest_write_usec": totals.longest_write_usec,
            "last_reclaim_usec": totals.last_realtime_usec,
            "dying": latest.dying,
            "residue_bytes": latest.file_bytes,
            "residues": len(latest.residues),
            "last_sweep_usec": self._sweep.last_realtime_usec,
            "last_sweep_took_usec": self._sweep.last_took_usec,
            "sweep_paused": self._sweep.paused,
            "paused": bool(self._pause.reason),
            "paused_by": [
                {"why": "request", "usec": self._held.total_usec(now_usec())},
                {"why": "pressure", "usec": self._waits.total_usec(now_usec())},
            ],
        }

    async def figures(self) -> Figures:
        """The same for metrics. Raises KernelError or OSError."""
        statistics = await self.statistics()
        latest = self._readings.latest
        by_cgroup = self.cgroup_version == 2
        return Figures(
            version=__version__,
            mode=str(self.mode),
            dying=latest.dying,
            residues=[
                (residue.path, residue.dying if by_cgroup else None, residue.file_bytes)
                for residue in latest.residues
            ],
            statistics=statistics,
        )

    def note_pauses(self) -> None:
        """A pause begins or ends, or may have."""
        self._held.note(now_usec(), on=bool(self._pause.reason))
        self._waits.note(now_usec(), on=bool(self._sweep.paused) and not self._pause.reason)


def _counts(durations: Durations) -> dict[str, int]:
    names = [*(f"le_{span(bound_usec)}" for bound_usec in BOUNDS_USEC), "longer"]
    return dict(zip(names, durations.counts, strict=True)) | {"sum_usec": durations.sum_usec}
