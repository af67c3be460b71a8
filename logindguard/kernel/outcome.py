"""What a shielded window came to, in a word and a clause that says why something is left."""

from __future__ import annotations

from ..model import Outcome, Reclaim, Residue
from .cost import MIN_WRITE_BYTES


def outcome_of(
    before: Residue, after: Residue, freed_bytes: int, plan: Reclaim, *, mapped_goes: bool, put_off: bool
) -> tuple[Outcome, str]:
    """From the residue before and after. `mapped_goes`: it ended because mapped pages began to go;
    `put_off`: because cgroups were born beside it.
    """
    if after.dying == 0:
        return Outcome.RELEASED, "nothing dying is left here"
    if mapped_goes or (plan.keep_mapped and after.clean_unmapped_bytes < MIN_WRITE_BYTES):
        return Outcome.MAPPED_KEPT, "what is left is mapped by live processes"
    if put_off:
        why = "cgroups are born beside it just now, and the last of it can wait"
    elif after.dirty_bytes + after.writeback_bytes > 0:
        why = "the rest waits for writeback"
    elif after.file_bytes - after.shmem_bytes > 0:
        why = "the rest is page cache that the kernel did not give up now"
    else:
        why = "the rest holds no page cache"
    if freed_bytes or after.dying < before.dying:
        return Outcome.PARTIAL, why
    return Outcome.UNCHANGED, why
