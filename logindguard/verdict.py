"""What keeps dying memcgs, in words, from readings by kind: the sweep's last word, and that of `explain`.

Hard facts (mm/memcontrol.c, mm/backing-dev.c):

- A charge is a page at least. So where there are fewer pages than dying memcgs, some of them are held by
  nothing that is charged: by dying ones below them, by writeback structures of inodes that they dirtied,
  by sockets with empty buffers, or by another reference inside the kernel, which nothing tells of.
- Kernel memory is the parent's from the removal on since 5.9, and keeps no memcg. Sockets do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .kernel.cgroupfs import PAGE_BYTES
from .kernel.pins import Explained, Kind
from .text import counted, joined, size

MEANS: Mapping[Kind, str] = {
    Kind.CLEAN: "the next reclaim takes it",
    Kind.DIRTY: "waits to be written to disk",
    Kind.WRITEBACK: "is being written to disk",
    Kind.MAPPED: "live processes map it: much of that stays until they end",
    Kind.SHMEM: "tmpfs or shared memory: stays until it is deleted",
    Kind.ANON: "of processes that live elsewhere now: stays until they end",
    Kind.SWAP: "swapped out: stays until its owners end",
    Kind.SLAB: "passed to the parent: keeps none of them",
    Kind.SOCK: "of sockets that were passed on or are closing: stays until they are closed",
    Kind.PERCPU: "the memcgs' own counters: go with them",
    Kind.KERNEL: "kernel memory: keeps none of them",
    Kind.OTHER: "in no counter, or of counters that lag behind",
}
"""Of each kind, for who looks at it before the sweep has done all it can."""
HOLDS_TOO = "kernel memory, which keeps them until it is freed, before Linux 5.9"
REFERENCES = (
    "Nothing that is charged holds them. Inodes that they dirtied may still refer to them: those let go\n"
    "once they are clean and some other memcg is removed. So may sockets that are still open."
)
KERNEL_MEMORY = frozenset({Kind.SLAB, Kind.KERNEL})
HOLDS = frozenset(MEANS) - KERNEL_MEMORY - {Kind.PERCPU, Kind.OTHER}
NOISE_BYTES = 128 << 10  # what two readings one after the other may differ by

_HELD_BY: Mapping[Kind, str] = {
    Kind.CLEAN: "of page cache that the kernel does not give up",
    Kind.DIRTY: "that waits to be written to disk",
    Kind.WRITEBACK: "that is being written to disk",
    Kind.MAPPED: "that live processes map",
    Kind.SHMEM: "of tmpfs or shared memory",
    Kind.ANON: "of memory of processes that live elsewhere now",
    Kind.SWAP: "that is swapped out",
    Kind.SLAB: "of slab memory",
    Kind.SOCK: "of buffers of sockets that are still open",
    Kind.KERNEL: "of kernel memory",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`kinds` hold some of them, most bytes first; `unknown`: at least so many are held by none of these."""

    kinds: tuple[Kind, ...]
    unknown: int
    text: str  # a clause


def verdict(found: Explained, *, kernel_memory_holds: bool = False, flusher_off: bool = False) -> Verdict:
    """Of a residue that the sweep has tried all of its ladder on.

    `flusher_off`: vm.dirty_writeback_centisecs is 0, so that the kernel writes nothing by itself.
    """
    holding = HOLDS | KERNEL_MEMORY if kernel_memory_holds else HOLDS
    pins = sorted(
        (pin for pin in found.pins if pin.kind in holding and pin.held_bytes), key=lambda pin: -pin.held_bytes
    )
    pages = sum(-(-pin.held_bytes // PAGE_BYTES) for pin in pins)
    unknown = max(0, found.dying - pages) if found.dying is not None else 0
    clauses = [_clause(pin.kind, pin.held_bytes, flusher_off=flusher_off) for pin in pins]
    text = f"held by {joined(clauses)}" if clauses else ""
    if found.processes:
        text += f"{', ' if text else ''}with what its own processes hold among that"
    if not clauses:
        text += (
            f"{'; ' if text else 'held by '}something unknown: nothing is charged to them ({_rest(found)})"
        )
    elif unknown:
        text += f"; at least {counted(unknown, 'dying memcg')} by others below, or something unknown"
        text += f" ({_rest(found)})"
    return Verdict(kinds=tuple(pin.kind for pin in pins), unknown=unknown, text=text)


def _clause(kind: Kind, held_bytes: int, *, flusher_off: bool) -> str:
    why = " (vm.dirty_writeback_centisecs is 0)" if flusher_off and kind is Kind.DIRTY else ""
    return f"{size(held_bytes)} {_HELD_BY[kind]}{why}"


def _rest(found: Explained) -> str:
    """The numbers, where they name no cause."""
    kinds = (Kind.CLEAN, Kind.SLAB, Kind.PERCPU, Kind.KERNEL, Kind.OTHER)
    counters = {pin.kind for pin in found.pins}
    return ", ".join(f"{kind} {size(found.held(kind))}" for kind in kinds if kind in counters)
