"""A cgroup that is read as it is and only takes note of what would be written.

The code that writes runs on it unchanged, so what it would do cannot be told wrongly.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Self

from ..model import PlannedWrite, Purpose
from .cgroupfs import Cgroup
from .ledger import Entry, Ledger


@dataclass(slots=True)
class Notes:
    """What would have been written so far, and what could be read there then."""

    writes: list[PlannedWrite] = field(default_factory=list)
    first: dict[tuple[int, str], str] = field(default_factory=dict)  # as it was, by inode and file
    now: dict[tuple[int, str], str] = field(default_factory=dict)


class DryCgroup(Cgroup):
    """Has a descriptor of its own."""

    __slots__ = ("_notes",)

    def __init__(self, fd: int, path: str, notes: Notes) -> None:
        super().__init__(fd, path)
        self._notes = notes

    @classmethod
    def over(cls, cgroup: Cgroup, notes: Notes) -> Self:
        return cls(os.dup(cgroup.fd), cgroup.path, notes)

    def open_child(self, name: str) -> DryCgroup:
        with super().open_child(name) as child:
            return DryCgroup.over(child, self._notes)

    def read(self, file: str) -> str:
        noted = self._notes.now.get((self.inode, file))
        return super().read(file) if noted is None else f"{noted}\n"

    def write(self, file: str, value: str) -> None:
        notes, key = self._notes, (self.inode, file)
        purpose = Purpose.RECLAIM
        if file == "memory.min":
            first = notes.first.setdefault(key, self.read(file).strip())
            purpose = Purpose.RESTORE if value == first else Purpose.SHIELD
            notes.now[key] = value
        notes.writes.append(PlannedWrite(path=self.path, file=file, value=value, purpose=purpose))


class NoLedger(Ledger):
    """Nothing is changed, so nothing has to be put back by others."""

    def __init__(self) -> None:
        return

    def write(self, entries: list[Entry]) -> None:
        return
