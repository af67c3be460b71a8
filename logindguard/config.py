"""Settings: what an administrator may say, and what holds where nothing is said."""

from __future__ import annotations

from dataclasses import dataclass, field

SEC = 1_000_000
MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """Globs over unit names; `exclude` wins."""

    include: tuple[str, ...] = (
        "session-*.scope",
        "user@*.service",
        "user-runtime-dir@*.service",
        "user-*.slice",
        "cron-*.service",
        "run-*.scope",
        "run-*.service",
    )
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TeardownSettings:
    """What is done at a teardown: before the rmdir by a hook, and after it once for all of a parent."""

    after: bool = True  # off: what a teardown leaves is for the sweep
    settle_usec: int = 300_000  # quiet time
    settle_max_usec: int = 1 * SEC  # from the first one on, whatever follows
    hook_deadline_usec: int = 150_000  # of a reclaim that a logout waits for


@dataclass(frozen=True, slots=True, kw_only=True)
class ReclaimSettings:
    keep_mapped_above_bytes: int = 8 * MIB  # a larger mapped share of a residue is kept
    write_usec: int = 4_000  # aim for the kernel time of one write
    window_usec: int = 250_000  # of writes, once the shield is up
    predicted_write_usec: int = 20_000  # above: only parents that nobody removes
    min_headroom_bytes: int = 64 * MIB  # below memory.max, memory.high and in free memory
    shared: bool = False  # where live cgroups cannot be shielded (cgroup v1): reclaim below live parents
    shared_ratio: float = 0.1  # most that live cgroups there may hold, as a part of the residue


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSettings:
    enabled: bool = True
    interval_usec: int = 300 * SEC
    cpu_percent: float = 2.0  # of one CPU
    retry_first_usec: int = 5 * SEC
    retry_max_usec: int = 300 * SEC
    grace_dying: int = 10_000  # a first pass that finds more waits first
    grace_usec: int = 120 * SEC


@dataclass(frozen=True, slots=True, kw_only=True)
class PressureSettings:
    """PSI memory `some avg10` in percent: pause above, go on below."""

    pause_percent: float = 10.0
    resume_percent: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSettings:
    """What is told regularly of how things stand."""

    textfile: str = ""  # for node_exporter's textfile collector; empty: none is written
    interval_usec: int = 15 * SEC  # of the textfile
    sample_usec: int = 900 * SEC  # of entries in the journal; 0: none


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    roots: tuple[str, ...] = ()  # subtrees the whole program is confined to; none: all
    log_level: str = "info"
    units: Units = field(default_factory=Units)
    teardown: TeardownSettings = field(default_factory=TeardownSettings)
    reclaim: ReclaimSettings = field(default_factory=ReclaimSettings)
    sweep: SweepSettings = field(default_factory=SweepSettings)
    pressure: PressureSettings = field(default_factory=PressureSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
