"""What one user may see of others without being authorized: sums, and no name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..model import ReclaimRecord, Residue
from ..paths import uid_of_path
from .values import Row, row, top_slice


def is_own(record: ReclaimRecord, uid: int) -> bool:
    """Whether a record tells of nobody but this user."""
    if record.teardowns:
        return {teardown.uid for teardown in record.teardowns} == {uid}
    return uid_of_path(record.target) == uid


def names_others(residues: Iterable[Residue], uid: int) -> bool:
    return any(uid_of_path(residue.path) not in (None, uid) for residue in residues)


def residue_rows(
    residues: Iterable[tuple[Residue, Mapping[str, object]]], uid: int, *, details: bool, shared: bool
) -> list[Row]:
    """A row for each residue; those of other users summed up by top-level slice, unless `details`.

    `shared`: each `dying` counts the whole hierarchy, as on cgroup v1.
    """
    rows: list[Row] = []
    sums: dict[str, dict[str, int]] = {}
    for residue, more in residues:
        user = uid_of_path(residue.path)
        told = row(residue) | row(more)
        if details or user in (None, uid):
            unit = residue.path.rpartition("/")[2]
            rows.append(told | row({"unit": unit, "uid": user}))
            continue
        total = sums.setdefault(top_slice(residue.path), {})
        for name, value in told.items():
            if name == "dying" and shared:
                total[name] = value.value
            elif name == "dying" or name.endswith("_bytes"):
                total[name] = total.get(name, 0) + value.value
    return rows + [row({"path": path, **total}) for path, total in sums.items()]
