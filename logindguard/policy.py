"""Decisions, as pure functions of what was read, the settings and the time.

The order of the questions is the order of the promises: first what could do
harm, then whether it is worth it. Each answer carries its reason as a clause
that reads on in a journal line.
"""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase

from .config import Config, Units
from .model import MAX_SHIELDED, Decision, Reading, Reclaim, Residue, Skip, Wait, Way

# What memory.stat cannot resolve: it lags by up to 64 pages a CPU, and its lines are not read at once.
NOISE_BYTES = 128 << 10
# Where a mapped share is to be kept, some of it goes with every pass over the residue. So there must be
# at least this part of it to gain, and no more than this part of the allowance may have gone lately.
MAPPED_PART = 8
# CPU time that one dying memcg costs a sweep, all told: an order of magnitude, for a forecast only.
FORECAST_USEC_PER_DYING = 10

# Of a stop job's cgroup, whose processes may resist for long: others' turns come in between.
STOP_WINDOW_USEC = 50_000

# A window reads memory.stat of a target and its children several times over; where once takes longer than
# this, only the sweep does it, which rests in between.
READ_BUDGET_USEC = 250_000
# Of a slice of memory.force_empty, which drains the batches of all CPUs before it reclaims anything.
SLICE_USEC = 10_000


def covers(unit: str, units: Units) -> bool:
    """Whether a unit's teardown is ours to care for; a deny wins over an allow."""
    return any(fnmatchcase(unit, glob) for glob in units.include) and not any(
        fnmatchcase(unit, glob) for glob in units.exclude
    )


def decide(reading: Reading, config: Config, way: Way = Way.SWEEP) -> Decision:
    """What to do about the residue under one live parent."""
    residue, limits = reading.residue, config.reclaim
    if nothing_left(residue, reading):
        return Skip(reason="nothing dying is left here")
    if reading.own_pages:
        return Skip(reason="the cgroup may hold pages of its own, which no shield covers")
    if reading.shields and reading.live_children > MAX_SHIELDED:
        return Skip(reason=f"more than {MAX_SHIELDED} live cgroups beside it would have to be shielded")
    if not reading.shields and (refusal := _shared(reading, config)):
        return refusal
    if hold := _hold(reading, config):
        return hold
    if harm := swap_harm(reading):
        return harm
    if way is not Way.SWEEP and reading.read_usec > READ_BUDGET_USEC:
        return Wait(
            reason=f"reading memory.stat takes {reading.read_usec // 1000} ms here: left to the sweep",
            outside=True,
        )
    if reading.predicted_write_usec > limits.predicted_write_usec and not reading.permanent:
        return Skip(
            reason=f"one write is predicted to take {reading.predicted_write_usec} us, "
            "which would hold up its removal"
        )
    keep_mapped = residue.mapped_bytes > limits.keep_mapped_above_bytes
    clean_bytes = residue.clean_unmapped_bytes
    if keep_mapped and not reading.spares_mapped:
        return Wait(reason="live processes map much of it, and MGLRU would take that too", keeps_mapped=True)
    if keep_mapped and (
        clean_bytes < residue.mapped_bytes // MAPPED_PART
        or reading.mapped_lost_bytes > limits.keep_mapped_above_bytes // MAPPED_PART
    ):
        return Wait(reason="what is left is mapped by live processes", keeps_mapped=True)
    takeable_bytes = clean_bytes + (0 if keep_mapped else residue.mapped_bytes)
    pending_bytes = residue.dirty_bytes + residue.writeback_bytes
    if takeable_bytes == 0 and pending_bytes == 0:
        return Wait(reason="what is left holds no page cache")
    # No amount can be asked of force_empty: it would try all of it, and wait for the disk.
    if takeable_bytes == 0 or (pending_bytes > takeable_bytes and not reading.shields):
        return Wait(reason="what is left waits for writeback")
    return Reclaim(
        max_bytes=takeable_bytes,  # and no more: the kernel looks long and hard for what is not there
        keep_mapped=keep_mapped,
        # Where nothing is shielded, it is weighed anew after every slice.
        window_usec=limits.window_usec if reading.shields else SLICE_USEC,
        write_usec=limits.write_usec if reading.shields else SLICE_USEC,
        reason="page cache of dying memcgs",
        predicted_write_usec=reading.predicted_write_usec,
    )


def nothing_left(residue: Residue, reading: Reading) -> bool:
    """Whether nothing dying is left; where nothing counts it by cgroup, none that holds page cache."""
    return residue.dying == 0 or (not reading.shields and residue.file_bytes == 0)


def _shared(reading: Reading, config: Config) -> Skip | Wait | None:
    """Why live cgroups shall not pay for a residue beside them, where none of them can be shielded."""
    residue, limits = reading.residue, config.reclaim
    if not limits.shared:
        return Skip(reason="live cgroups beside it could lose page cache, and reclaim.shared is off")
    if reading.swap_on:
        return Skip(reason="swap is in use, and live cgroups beside it could be swapped out")
    # The kernel takes a little of each memcg in turn: most of a residue has to go before any is freed. So
    # what went before counts on both sides, or the end, which all of it was for, would never be due.
    gain_bytes = residue.file_bytes + reading.gave_bytes
    if reading.live_bytes + reading.lost_bytes > limits.shared_ratio * gain_bytes:
        lost = f" and lost {reading.lost_bytes >> 10} KiB of late" if reading.lost_bytes else ""
        return Wait(
            reason=f"live cgroups beside it hold {reading.live_bytes >> 10} KiB{lost},"
            f" over {limits.shared_ratio:g} (reclaim.shared_ratio) of the {gain_bytes >> 10} KiB"
            f" that dying ones hold{' or gave' if reading.gave_bytes else ''}",
            outside=True,
        )
    return None


def _hold(reading: Reading, config: Config) -> Wait | None:
    """Whether now is no time for a write: no room for it, or it would take what is to be kept."""
    residue = reading.residue
    if not reading.shields and residue.mapped_bytes > config.reclaim.keep_mapped_above_bytes:
        return Wait(reason="much of it is mapped, and force_empty would take that too", keeps_mapped=True)
    pressure = reading.memory_some_percent
    if pressure is not None and pressure >= config.pressure.pause_percent:
        return Wait(reason=f"the host is under memory pressure ({pressure:.0f} % some)", outside=True)
    room = config.reclaim.min_headroom_bytes
    if reading.available_bytes < room:
        return Wait(reason="the host has too little free memory", outside=True)
    if reading.headroom_bytes is not None and reading.headroom_bytes < room:
        return Wait(reason="a memory limit above has too little headroom for a shield", outside=True)
    return None


def swap_harm(reading: Reading) -> Skip | None:
    """Whether reclaim could swap something out; nothing is ever swapped out by our doing."""
    residue = reading.residue
    if reading.swap_on and not reading.refuses_swap:
        if residue.shmem_bytes > 0:
            return Skip(reason="it holds shared memory that this kernel would swap out")
        if residue.anon_bytes > NOISE_BYTES:
            return Skip(reason="it holds anonymous memory that this kernel would swap out")
    return None


def decide_ending(reading: Reading, config: Config, *, vacated: bool = False) -> Decision:
    """What to do about a cgroup itself, which is about to be removed.

    While a stop job still empties it, only what none of its processes maps. Once it is `vacated`, what
    is mapped is mapped by others: much of it is kept, as everywhere; and nothing shall be left, so there
    the kernel is asked for more than memory.stat, which lags behind, knows of.
    """
    residue, limits = reading.residue, config.reclaim
    if not vacated and (hold := _hold(reading, config)):
        return hold
    much_mapped = residue.mapped_bytes > limits.keep_mapped_above_bytes
    if much_mapped and not reading.shields:
        return Wait(reason="much of it is mapped, and force_empty would take that too", keeps_mapped=True)
    harm = swap_harm(reading)
    if harm and not (vacated and reading.may_forbid_swap):
        return harm
    keep_mapped = much_mapped or not vacated
    clean_bytes = residue.clean_unmapped_bytes
    if keep_mapped and clean_bytes < NOISE_BYTES:
        return Wait(
            reason="it holds little page cache that is clean and unmapped",
            keeps_mapped=much_mapped and vacated,
        )
    return Reclaim(
        max_bytes=clean_bytes if keep_mapped else max(residue.file_bytes, reading.usage_bytes, NOISE_BYTES),
        keep_mapped=keep_mapped,
        window_usec=limits.window_usec if vacated else min(limits.window_usec, STOP_WINDOW_USEC),
        write_usec=limits.write_usec,
        reason="page cache of a cgroup that is about to be removed",
        forbid_swap=harm is not None,
    )


def for_sweep(decision: Reclaim, share_percent: float) -> Reclaim:
    """The same window in a sweep: short enough that, idle in between, no second is over the share.

    A window never shrinks below 10 ms, since opening a shield costs more than that would save.
    """
    return replace(decision, window_usec=max(10_000, min(decision.window_usec, int(share_percent * 10_000))))


def ramp_percent(cap_percent: float, since_start_usec: int, grace_usec: int) -> float:
    """The share during a first big sweep: a tenth of the cap, growing to all of it over the grace time."""
    if since_start_usec >= grace_usec:
        return cap_percent
    return cap_percent * (0.1 + 0.9 * since_start_usec / grace_usec)


def forecast_usec(dying: int, share_percent: float) -> int:
    """Roughly how long a sweep over so many takes at that share."""
    return int(dying * FORECAST_USEC_PER_DYING * 100 / share_percent)


def deepest_first(residues: list[Residue]) -> list[Residue]:
    """A dying memcg below a shielded live child is shielded too, so the deepest parents come first."""
    return sorted(residues, key=lambda residue: -residue.path.count("/"))
