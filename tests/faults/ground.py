"""One parent with a residue and three live children, and all that a backend can be asked about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from logindguard.kernel import units
from logindguard.kernel.cgroupfs import Cgroup, KernelError
from logindguard.kernel.features import Features
from logindguard.kernel.ledger import Ledger, LedgerError
from logindguard.kernel.shield import restore
from logindguard.kernel.v2 import V2Backend
from logindguard.model import Reclaim, Residue
from tests.faults import kernfs
from tests.unit.fake_cgroupfs import FakeTree

MIB = 1 << 20
PARENT = "/user.slice/user-1000.slice"
CHILDREN = tuple(f"{PARENT}/session-{number}.scope" for number in (1, 2, 3))
OWN = dict(zip(CHILDREN, ("0", str(64 * MIB), "max"), strict=True))
TYPED = (KernelError, LedgerError, OSError)
# What the program writes to, and nothing else.
WRITTEN = {"memory.min", "memory.reclaim", "memory.swap.max"}


@dataclass
class Ground:
    tree: FakeTree
    ledger: Ledger
    backend: V2Backend
    writes: list[tuple[str, str, str]] = field(default_factory=list)  # path, file, value

    def fill(self) -> None:
        self.tree.set(PARENT, dying=5, file=8 * MIB, file_mapped=MIB)

    def run(self) -> list[BaseException]:
        """Everything that reads or writes; the typed errors that came of it, of which none is fatal."""
        self.fill()
        inode = self.tree.hierarchy.inode_of(PARENT) or 0
        residue = Residue(path=PARENT, inode=inode, dying=5, file_bytes=8 * MIB)
        plan = Reclaim(max_bytes=2 * MIB, keep_mapped=True, window_usec=100_000, write_usec=1_000, reason="")
        ending = Reclaim(
            max_bytes=MIB,
            keep_mapped=False,
            window_usec=100_000,
            write_usec=1_000,
            reason="",
            forbid_swap=True,
        )
        backend = self.backend
        asked: list[Callable[[], object]] = [
            backend.total_dying,
            backend.residues,
            lambda: backend.read(PARENT),
            lambda: backend.plan(residue, plan),
            lambda: backend.reclaim(residue, plan, lambda: False),
            lambda: backend.read_ending(PARENT),
            lambda: backend.reclaim_ending(residue, ending, lambda: False),
            lambda: backend.nearest_live(f"{PARENT}/session-9.scope"),
            lambda: units.find(self.tree.hierarchy, (), "session-1.scope"),
            lambda: restore(self.tree.hierarchy, self.ledger),
        ]
        errors: list[BaseException] = []
        for ask in asked:
            try:
                ask()
            except TYPED as error:
                errors.append(error)
        return errors

    def wrong(self) -> list[str]:
        """After a restore: values that are not their administrator's, writes that should not have been."""
        restore(self.tree.hierarchy, self.ledger)
        found = [
            f"{path} has memory.min {value}, not {own}"
            for path, own in OWN.items()
            if (value := self.tree.memory_min(path)) != own
        ]
        for path, file, value in self.writes:
            allowed = {"memory.min": CHILDREN, "memory.reclaim": (PARENT,), "memory.swap.max": (PARENT,)}
            if path not in allowed.get(file, ()):
                found.append(f"{value!r} was written to {file} of {path}")
        if (self.tree.directory(PARENT) / "memory.swap.max").read_text().strip() != "max":
            found.append("memory.swap.max stays changed")
        return found


def ground_in(directory: Path) -> Ground:
    """Call it within `noting` to have the writes."""
    top = directory / "cgroup"
    top.mkdir()
    tree = FakeTree(top)
    tree.add("/user.slice", dying=5, file=8 * MIB)
    tree.set("/", dying=5, file=8 * MIB)
    tree.add(PARENT)
    for path, own in OWN.items():
        tree.add(path, current=10 * MIB)
        kernfs.put(tree.directory(path), "memory.min", own)
    ledger = Ledger(directory / "run")
    ledger.prepare()
    features = Features(
        memory_reclaim=True,
        swappiness_word=False,
        partial_walks=True,
        mglru=True,
        recursiveprot=True,
        reparents_lru=False,
        dying_key="nr_dying_descendants",
    )
    return Ground(tree, ledger, V2Backend(tree.hierarchy, features, ledger))


def noted(ground: Ground) -> Callable[[Cgroup, str, str], None]:
    """The kernel's write, taken note of."""

    def write(cgroup: Cgroup, file: str, value: str) -> None:
        ground.writes.append((cgroup.path, file, value))
        kernfs.write(cgroup, file, value)

    return write
