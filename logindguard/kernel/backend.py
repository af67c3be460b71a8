"""What the guard and the sweep ask of a kernel, whichever cgroup version it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..model import Mode, PlannedWrite, Reading, Reclaim, Residue, Window
from .cgroupfs import Hierarchy
from .pins import Explained


class Backend(Protocol):
    """Every method blocks in the kernel: call it on a worker thread, never on the event loop."""

    name: str
    mode: Mode
    reason: str
    hierarchy: Hierarchy

    def total_dying(self) -> int:
        """Dying memcgs in everything the program may touch; one read where there are none."""

    def residues(self) -> list[Residue]:
        """One for each live parent that dying memcgs hang under directly, deepest first, without bytes.

        Walks only where the count is not 0.
        """

    def read(self, path: str) -> Reading:
        """All that a decision about the residue under `path` needs. Raises CgroupGone."""

    def explain(self, path: str) -> Explained:
        """What holds the residue under `path`, by kind. Raises CgroupGone."""

    def nearest_live(self, path: str) -> str:
        """`path`, or its nearest ancestor that still exists. Raises CgroupGone where that is not ours."""

    def read_ending(self, path: str) -> Reading:
        """The same of a cgroup itself while a stop job empties it."""

    def reclaim(self, residue: Residue, plan: Reclaim, should_stop: Callable[[], bool]) -> Window:
        """One bounded window; ends early when `should_stop` answers true between two writes.

        Raises CgroupGone, KernelError or LedgerError with everything put back.
        """

    def plan(self, residue: Residue, plan: Reclaim) -> list[PlannedWrite]:
        """The writes of the window that `reclaim` would open now, in their order; nothing is written.

        Every write takes as long as predicted: what the kernel says to one may end the window before.
        """

    def reclaim_ending(self, residue: Residue, plan: Reclaim, should_stop: Callable[[], bool]) -> Window:
        """The same on a cgroup itself while a stop job empties it: bounded, unshielded, it is all its own."""
