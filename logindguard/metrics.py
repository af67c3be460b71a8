"""All figures in Prometheus' text format, for node_exporter's textfile collector and whoever else reads it.

Hard facts (prometheus.io: exposition formats 0.0.4, metric and label naming; node_exporter, textfile):

- The collector reads that format, not OpenMetrics: the TYPE of a counter is that of the name with _total.
- Base units are seconds and bytes. A histogram's buckets are cumulative, and end with le="+Inf".
- Every value of a label is a time series for good. So slices are those below the root, and no more than
  MAX_SLICES of them; users, units and sessions are in the journal alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .model import Mode
from .statistics import BOUNDS_USEC
from .text import printable, span

PREFIX = "logindguard"
MAX_SLICES = 16
OTHERS = "other"
SEC = 1_000_000

Labels = Mapping[str, str]
Series = tuple[str, Labels, float]
"""What comes after the name, labels, value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What there is to tell; `statistics` is the answer of GetStatistics, empty where no service runs.

    `residues` are path, dying and bytes; dying is None where it is not counted by cgroup (v1).
    """

    version: str
    mode: str
    dying: int
    residues: Sequence[tuple[str, int | None, int]]
    statistics: Mapping[str, Any] = field(default_factory=dict)
    up: bool = True


_FAMILIES = {  # name: type, help
    "up": ("gauge", "Whether the service runs."),
    "info": ("gauge", "The version, as a label."),
    "mode": ("gauge", "1 for the mode that the guard works in."),
    "dying_memcgs": ("gauge", "Memory cgroups that were removed and are still there."),
    "slice_dying_memcgs": ("gauge", "Dying memory cgroups by top-level slice; not on cgroup v1."),
    "slice_residue_bytes": ("gauge", "Page cache that dying memory cgroups hold, by top-level slice."),
    "teardowns_total": ("counter", "Ended units that were told of, by what made them."),
    "teardowns_shed_total": ("counter", "Teardowns left to the sweep, since too many came at once."),
    "reclaims_total": ("counter", "Records of reclaims, by when they ran and how they ended."),
    "reclaimed_bytes_total": ("counter", "Page cache that was released."),
    "stolen_pages_total": ("counter", "Pages that live cgroups lost meanwhile, at most."),
    "refaulted_pages_total": ("counter", "Pages read again within a minute after a reclaim, machine-wide."),
    "reclaim_duration_seconds": ("histogram", "How long reclaims took."),
    "cpu_seconds_total": ("counter", "CPU time of reclaims."),
    "writes_total": ("counter", "Writes to control files of cgroups."),
    "longest_write_seconds": ("gauge", "The longest write since the start."),
    "paused_seconds_total": (
        "counter",
        "How long all was held by request, the sweep by the host's pressure.",
    ),
    "paused": ("gauge", "Whether somebody has paused it."),
    "last_sweep_timestamp_seconds": ("gauge", "When the last sweep began."),
    "last_sweep_duration_seconds": ("gauge", "How long the last sweep took."),
}


def exposition(figures: Figures) -> str:
    """One text, each family with its HELP and TYPE; those that nothing is known of are left out."""
    series = _series(figures)
    return "".join(_family(name, *of, series[name]) for name, of in _FAMILIES.items() if series[name])


def _series(figures: Figures) -> dict[str, list[Series]]:
    stats = figures.statistics
    dying, held = _slices(figures.residues)

    def one(key: str, per: int = 1) -> list[Series]:
        return [("", {}, stats[key] / per)] if key in stats else []

    def rows(key: str, *labels: str, value: str = "count", per: int = 1) -> list[Series]:
        return [
            ("", {label: str(row[label]) for label in labels}, row[value] / per) for row in stats.get(key, ())
        ]

    return {
        "up": [("", {}, figures.up)],
        "info": [("", {"version": figures.version}, 1)],
        "mode": [("", {"mode": mode}, mode == figures.mode) for mode in Mode],
        "dying_memcgs": [("", {}, figures.dying)],
        "slice_dying_memcgs": _labelled(dying),
        "slice_residue_bytes": _labelled(held),
        "teardowns_total": rows("teardowns", "trigger"),
        "teardowns_shed_total": one("teardowns_shed_total"),
        "reclaims_total": rows("reclaims", "way", "outcome"),
        "reclaimed_bytes_total": rows("freed", "way", value="bytes"),
        "stolen_pages_total": one("stolen_pages_total"),
        "refaulted_pages_total": one("refaulted_pages_total"),
        "reclaim_duration_seconds": _durations(stats),
        "cpu_seconds_total": one("cpu_usec_total", SEC),
        "writes_total": one("writes_total"),
        "longest_write_seconds": one("longest_write_usec", SEC),
        "paused_seconds_total": rows("paused_by", "why", value="usec", per=SEC),
        "paused": one("paused"),
        "last_sweep_timestamp_seconds": one("last_sweep_usec", SEC),
        "last_sweep_duration_seconds": one("last_sweep_took_usec", SEC),
    }


def _slices(
    residues: Iterable[tuple[str, int | None, int]],
) -> tuple[dict[str, float], dict[str, float]]:
    """Dying memcgs and bytes by top-level slice; the smallest are one when there are too many."""
    dying: dict[str, float] = {}
    held: dict[str, float] = {}
    for path, count, count_bytes in residues:
        name = path.strip("/").partition("/")[0] or "/"
        held[name] = held.get(name, 0) + count_bytes
        if count is not None:
            dying[name] = dying.get(name, 0) + count
    for name in sorted(held, key=lambda each: (-dying.get(each, 0), -held[each]))[MAX_SLICES:]:
        for figures in (dying, held):
            if name in figures:
                figures[OTHERS] = figures.get(OTHERS, 0) + figures.pop(name)
    return dying, held


def _labelled(by_slice: Mapping[str, float]) -> list[Series]:
    return [("", {"slice": name}, value) for name, value in sorted(by_slice.items())]


def _durations(stats: Mapping[str, Any]) -> list[Series]:
    series: list[Series] = []
    for row in stats.get("durations", ()):
        way = {"way": str(row["way"])}
        below = 0
        for bound_usec in (*BOUNDS_USEC, None):
            below += row["longer" if bound_usec is None else f"le_{span(bound_usec)}"]
            bound = "+Inf" if bound_usec is None else _number(bound_usec / SEC)
            series.append(("_bucket", way | {"le": bound}, below))
        series += [("_sum", way, row["sum_usec"] / SEC), ("_count", way, below)]
    return series


def _family(name: str, kind: str, told: str, series: list[Series]) -> str:
    lines = [f"# HELP {PREFIX}_{name} {told}", f"# TYPE {PREFIX}_{name} {kind}"]
    for suffix, labels, value in series:
        within = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        lines.append(f"{PREFIX}_{name}{suffix}{f'{{{within}}}' if within else ''} {_number(value)}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """On one line and in UTF-8; a reader takes no file that escapes anything but these two and a line end."""
    return printable(text).replace("\\", "\\\\").replace('"', '\\"')


def _number(value: float) -> str:
    """The shortest that says it exactly; whole numbers without a point."""
    return str(int(value)) if value == int(value) else repr(float(value))
