"""What others do to the cgroups meanwhile: they set values of their own, make cgroups and remove them."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tests.faults.kernfs import LIMITS, bury, put
from tests.unit.fake_cgroupfs import FakeTree

PARENT = "/p"
OWN_VALUES = ("0", str(64 << 20), "max")
MIB = 1 << 20


class World:
    """A fake tree with a parent that holds a residue, and what its administrators want it to be.

    What they do is noted in a file first, so that it is known of a process that was killed.
    """

    def __init__(self, directory: Path, chance: random.Random, *, recursiveprot: bool) -> None:
        self.chance = chance
        self.notes = directory / "notes"
        top = directory / "cgroup"
        top.mkdir()
        self.tree = FakeTree(top, recursiveprot=recursiveprot)
        self.tree.add(PARENT, dying=50, file=8 * MIB)
        self.tree.set("/", dying=50, file=8 * MIB)
        self.era = "a"  # in the names of those that are born, which another process counts too
        self.born = 0
        for _ in range(chance.randrange(1, 6)):
            self.bear()

    # What may happen at any moment

    def happen(self) -> None:
        happening = self.chance.choice((self.set, self.set, self.bear, self.remove, self.reuse, self.end))
        happening()

    def set(self) -> None:
        if names := self._names():
            self._set(self.chance.choice(names))

    def bear(self, name: str = "") -> None:
        if not self.tree.directory(PARENT).exists():
            return
        self.born += 1
        path = f"{PARENT}/{name or f'{self.era}{self.born}'}"
        self.tree.add(path, current=self.chance.choice((0, 5 * MIB, 300 * MIB)))
        self._set(path.rpartition("/")[2])
        if not name and self.chance.random() < 0.3:
            self.tree.add(f"{path}/below")
            self._set(f"{path.rpartition('/')[2]}/below")

    def remove(self) -> None:
        if names := self._names():
            bury(self.tree, f"{PARENT}/{self.chance.choice(names)}")

    def reuse(self) -> None:
        """The same name again, and with it the very value that the guard wrote to the one before."""
        if names := self._names():
            name = self.chance.choice(names)
            value = self.tree.memory_min(f"{PARENT}/{name}")
            bury(self.tree, f"{PARENT}/{name}")
            self.bear(name)
            self._note(name, "memory.min", value)

    def end(self) -> None:
        """The whole slice goes; seldom, since all is over then."""
        if self.chance.random() < 0.1 and self.tree.directory(PARENT).exists():
            bury(self.tree, PARENT)

    def _names(self) -> list[str]:
        parent = self.tree.directory(PARENT)
        return sorted(entry.name for entry in parent.iterdir() if entry.is_dir()) if parent.exists() else []

    def _set(self, name: str) -> None:
        for file in LIMITS if self.chance.random() < 0.5 else LIMITS[:1]:
            self._note(name, file, self.chance.choice(OWN_VALUES))

    def _note(self, name: str, file: str, value: str) -> None:
        directory = self.tree.directory(f"{PARENT}/{name}")
        note = {"inode": directory.stat().st_ino, "file": file, "value": value}
        with self.notes.open("a") as notes:
            notes.write(json.dumps(note) + "\n")
        put(directory, file, value)

    # What has to be in the end

    def wrong(self) -> list[str]:
        """Where a value is not the last one that its administrator wrote, or the kernel's own."""
        wanted: dict[tuple[int, str], str] = {}
        for line in self.notes.read_text().splitlines():
            note = json.loads(line)
            wanted[note["inode"], note["file"]] = note["value"]
        found = []
        for directory in [self.tree.hierarchy.mount, *self.tree.hierarchy.mount.rglob("*")]:
            if directory.is_dir():
                for file, default in zip(LIMITS, ("0", "max"), strict=True):
                    want = wanted.get((directory.stat().st_ino, file), default)
                    value = (directory / file).read_text().strip()
                    if value != want:
                        found.append(f"{directory.name}/{file} is {value}, not {want}")
        return found
