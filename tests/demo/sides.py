"""The native demo's two sides: what is played, what it came to, and how that is told and judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.demo.table import number, seconds, size, table

NEIGHBOUR_BYTES = 100 << 20
# With the neighbour's anonymous memory (1 MiB) far less than reclaim.shared_ratio (0.1) of the residue: the
# guard weighs it against what is left after every slice.
SMALL_NEIGHBOUR_BYTES = 1 << 20
# Of the memcgs made: without the guard others may reclaim as well (DAMON, memory pressure) ...
STAY_PART = 0.5
# ... and with it few are left, or, where nothing is shielded, what the neighbour is too large for.
LEFT_PART = 0.05
SHARED_LEFT_PART = 0.5

UNITS = 'units: {include: ["leak-*"]}\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One side: its head in the table, and the guard's settings beyond `roots` (None: no guard)."""

    name: str  # of its cgroup
    title: str
    words: str
    settings: str | None
    releases: bool  # what is expected
    neighbour_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one side came to; what the guard told is None without it."""

    plan: Plan
    made: int
    dying_before: int
    dying_after: int
    machine_more: int  # dying memcgs on the whole machine (v1), where others come and go too
    waited_sec: float
    held_bytes: int  # page cache of dying memcgs at the end
    neighbour_pages: int  # in memory before
    taken_pages: int  # of them
    told_pages: int | None = None  # upper bound for all live cgroups, by the guard's own records
    freed_bytes: int | None = None
    release_usec: float | None = None
    cpu_usec: int | None = None
    sentences: tuple[str, ...] = ()


WITHOUT = Plan(
    name="without",
    title="WITHOUT GUARD",
    words="without the guard",
    settings=None,
    releases=False,
    neighbour_bytes=NEIGHBOUR_BYTES,
)
PRECISE = Plan(
    name="with",
    title="WITH GUARD",
    words="with the guard",
    settings=UNITS,
    releases=True,
    neighbour_bytes=NEIGHBOUR_BYTES,
)
DEFAULT = Plan(
    name="default",
    title="DEFAULT",
    words="by default",
    settings=UNITS,
    releases=False,
    neighbour_bytes=SMALL_NEIGHBOUR_BYTES,
)
SHARED = Plan(
    name="shared",
    title="SHARED: YES",
    words="with reclaim.shared on",
    settings=UNITS + "reclaim: {shared: yes}\n",
    releases=True,
    neighbour_bytes=SMALL_NEIGHBOUR_BYTES,
)


def plans(version: int, *, swap_on: bool) -> list[Plan]:
    """The sides that make sense on a cgroup version; on v1 `reclaim.shared` is refused while swap is on."""
    if version == 2:
        return [WITHOUT, PRECISE]
    return [DEFAULT] if swap_on else [DEFAULT, SHARED]


def summary(rounds: Sequence[Round], version: int) -> str:
    def each(show: Callable[[Round], str]) -> list[str]:
        return [show(one) for one in rounds]

    rows = [
        ("", each(lambda one: one.plan.title)),
        ("cgroups that came and went", each(lambda one: number(one.made))),
        ("dying memcgs before", each(lambda one: number(one.dying_before))),
        ("dying memcgs after", each(lambda one: number(one.dying_after))),
        ("  more than before on the whole machine", each(lambda one: number(one.machine_more))),
        ("  seconds after the last removal", each(lambda one: f"{one.waited_sec:.1f}")),
        ("page cache held by dying memcgs after", each(lambda one: size(one.held_bytes))),
        ("page cache freed by the guard", each(lambda one: size(one.freed_bytes))),
        ("pages that the live neighbour held", each(lambda one: number(one.neighbour_pages))),
        ("pages taken from the live neighbour", each(lambda one: number(one.taken_pages))),
        ("  from any live cgroup, told by the guard", each(lambda one: number(one.told_pages))),
        ("seconds from removal to release, median", each(lambda one: seconds(one.release_usec))),
        ("CPU seconds used by the guard", each(lambda one: seconds(one.cpu_usec))),
    ]
    if version == 2:
        del rows[4]
    return table(rows)


def taken_by_others(rounds: Sequence[Round]) -> int:
    """Pages that the neighbour lost where the guard wrote nothing: to DAMON, say, or to memory pressure."""
    return sum(one.taken_pages for one in rounds if not one.plan.releases)


def shortcomings(rounds: Sequence[Round]) -> list[str]:
    """Why the guard did not do its job, a sentence each."""
    failures = []
    others_took = bool(taken_by_others(rounds))  # then the guard's own word counts
    for one in rounds:
        side = one.plan.words[0].upper() + one.plan.words[1:]
        if not one.plan.releases:
            if one.dying_after < one.made * STAY_PART:
                failures.append(
                    f"{side}, only {one.dying_after} of {one.made} memcgs stayed: there was nothing to guard."
                )
            if one.freed_bytes:
                failures.append(f"{side}, it released {size(one.freed_bytes)}, and should not have.")
            continue
        if one.dying_after > one.made * (SHARED_LEFT_PART if one.plan is SHARED else LEFT_PART):
            failures.append(f"{side}, {one.dying_after} dying memcgs were left after {one.waited_sec:.0f} s.")
        if not one.freed_bytes:
            failures.append(f"{side}, it told of no release.")
        taken = one.told_pages if others_took else one.taken_pages
        if one.plan is not SHARED and taken:
            failures.append(f"{side}, the live neighbour lost {taken} pages.")
    return failures


def verdict(rounds: Sequence[Round], version: int) -> str:
    """What a run without shortcomings has shown."""
    first, last = rounds[0], rounds[-1]
    others = taken_by_others(rounds)
    blame = (
        f" The {others} pages that the neighbour lost beside that were not the guard's doing: something else"
        " reclaims on this machine, such as DAMON."
        if others
        else ""
    )
    if version == 2:
        return (
            f"The guard did its job: {first.dying_after} dying memcgs without it, {last.dying_after} with it,"
            f" and no page taken from the live neighbour.{blame}"
        )
    kept = (
        "The guard did its job: nothing shields live cgroups on cgroup v1, so by default it took nothing"
        f" from the neighbour, and released nothing after the removal.{blame}"
    )
    if last.plan is not SHARED:
        return f"{kept} With swap in use, as here, the setting reclaim.shared changes nothing."
    return (
        f"{kept} With the setting reclaim.shared it released {size(last.freed_bytes)}, and"
        f" {last.dying_after} of {last.made} dying memcgs were left; that cost the neighbour"
        f" {last.taken_pages} of its {last.neighbour_pages} pages."
    )
