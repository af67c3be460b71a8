"""What a sweep would write now: for who wants to see it before it is done."""

from __future__ import annotations

from collections.abc import Callable

from . import policy
from .config import Config
from .kernel.backend import Backend
from .kernel.cgroupfs import CgroupGone
from .kernel.idle import thread_cpu_usec
from .model import PlannedWrite, Reclaim

BUDGET_USEC = 2_000_000  # CPU time
MAX_WRITES = 10_000


def plan(backend: Backend, config: Config, wants: Callable[[str], bool]) -> list[PlannedWrite]:
    """The first window at each live parent, in the order of a sweep, as things stand. Writes nothing.

    Blocks; ends early where there is too much of it. Raises KernelError or OSError.
    """
    begin_usec = thread_cpu_usec()
    writes: list[PlannedWrite] = []
    for residue in policy.deepest_first([each for each in backend.residues() if wants(each.path)]):
        if len(writes) >= MAX_WRITES or thread_cpu_usec() - begin_usec >= BUDGET_USEC:
            break
        try:
            reading = backend.read(residue.path)
            decision = policy.decide(reading, config)
            if isinstance(decision, Reclaim):
                shaped = policy.for_sweep(decision, config.sweep.cpu_percent)
                writes += backend.plan(reading.residue, shaped)
        except CgroupGone:
            continue
    return writes
