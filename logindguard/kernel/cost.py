"""How long a write of memory.reclaim keeps the kernel busy, learnt from each one.

Hard facts (measured under TCG, 10,000 dying memcgs): one 4 KiB write took 94-456 ms
on 6.1, which walks the whole subtree in every write, and 4-28 ms on 6.12, which
does not. So on kernels with full walks the number of dying memcgs bounds the
time from below, and the size of the write only adds to it.

A request for more than there is costs far more than one for less: the kernel
tries 16 times at 13 priorities each before it answers EAGAIN (MAX_RECLAIM_RETRIES,
DEF_PRIORITY). Such a write says nothing about the next one and is not learnt from.

With MGLRU the size of a write bounds nothing below a dying memcg: get_nr_to_scan() has
all of an offline one scanned ("scrape"), so a write of 4 KiB took half of what the first
one held each time: 8 of 16 MiB as well as 200 of 400 MiB, in 107 ms (6.12, TCG).
"""

from __future__ import annotations

from dataclasses import dataclass

from .cgroupfs import PAGE_BYTES

MIN_WRITE_BYTES = 128 << 10  # vmscan works in batches of 32 pages, less saves nothing
MAX_WRITE_BYTES = 16 << 20
MANY_DYING = 100  # from here on the walk outweighs the rest of a write


@dataclass(slots=True)
class WriteCost:
    """Kernel time of writes, learnt from each one. All of it usec; EWMA of one eighth."""

    per_dying_usec: float = 1.0
    per_mib_usec: float = 400.0  # of what was asked
    per_freed_mib_usec: float = 400.0

    def learn(self, *, wrote_bytes: int, dying: int, took_usec: int) -> None:
        if dying >= MANY_DYING:
            walk_usec = max(0.0, took_usec - self.per_mib_usec * wrote_bytes / (1 << 20))
            self.per_dying_usec += (walk_usec / dying - self.per_dying_usec) / 8
        elif wrote_bytes >= MIN_WRITE_BYTES:
            self.per_mib_usec += (took_usec * (1 << 20) / wrote_bytes - self.per_mib_usec) / 8

    def learn_freed(self, *, freed_bytes: int, took_usec: int) -> None:
        """From all writes of a window together: what one alone took is not known in time."""
        if freed_bytes >= MIN_WRITE_BYTES:
            self.per_freed_mib_usec += (took_usec * (1 << 20) / freed_bytes - self.per_freed_mib_usec) / 8

    def scrape_usec(self, held_bytes: int) -> int:
        """What even the smallest write takes with MGLRU where one dying memcg holds all of it."""
        return int(self.per_freed_mib_usec * held_bytes / 2 / (1 << 20))

    def walk_usec(self, dying: int) -> int:
        """What even the smallest write takes where every one walks the whole subtree."""
        return int(self.per_dying_usec * dying) if dying >= MANY_DYING else 0

    def predicted_usec(self, wrote_bytes: int, dying: int) -> int:
        return self.walk_usec(dying) + int(self.per_mib_usec * wrote_bytes / (1 << 20))

    def fitting_bytes(self, write_usec: int) -> int:
        """The write that should take about `write_usec`, page-aligned and within the bounds."""
        wanted = int(write_usec / max(self.per_mib_usec, 1.0) * (1 << 20))
        return max(MIN_WRITE_BYTES, min(MAX_WRITE_BYTES, wanted)) // PAGE_BYTES * PAGE_BYTES
