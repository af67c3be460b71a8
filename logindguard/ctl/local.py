"""What can be told without the service: the kernel's own files, read and never written."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass

from ..kernel.backend import Backend
from ..kernel.cgroupfs import CgroupGone, Hierarchy, KernelError, Unsupported, detect
from ..kernel.choose import choose
from ..kernel.features import Features, look
from ..kernel.ledger import Ledger, LedgerError
from ..kernel.residue import Family, walk
from ..kernel.shield import Restored, restore
from ..model import Mode, Residue
from .client import Record, without_dying
from .exits import Exit, Failure
from .roots import Roots


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """This kernel, and the mode that the service would work in."""

    hierarchy: Hierarchy
    features: Features
    backend: Backend

    @property
    def mode(self) -> Mode:
        return self.backend.mode


def host(roots: Roots) -> Host:
    """Failure where there is nothing to guard."""
    hierarchy = detect(roots.proc)
    if hierarchy is None:
        raise Failure("No cgroup hierarchy with the memory controller is mounted.", Exit.UNAVAILABLE)
    try:
        features = look(hierarchy, proc=roots.proc, sys=roots.sys)
        ledger = Ledger(roots.run / "logindguard")  # never written to here
        backend = choose(hierarchy, ledger, features=features, proc=roots.proc, sys=roots.sys)
    except KernelError as error:
        raise Failure(f"The cgroup tree cannot be read: {error}.", Exit.KERNEL) from error
    return Host(hierarchy=hierarchy, features=features, backend=backend)


def total_dying(host: Host) -> int:
    try:
        return host.backend.total_dying()
    except (KernelError, OSError) as error:
        raise Failure(f"Dying memcgs cannot be counted: {error}.", Exit.KERNEL) from error


def parents(host: Host) -> list[str]:
    """Live cgroups right below which something is dying; no memory.stat is read on cgroup v2."""
    try:
        if host.hierarchy.version == 1:
            return [residue.path for residue in host.backend.residues()]
        with host.hierarchy.open("/") as cgroup:
            return [residue.path for residue in walk(cgroup, host.features.dying_key)]
    except (KernelError, OSError) as error:
        raise Failure(f"The cgroup tree cannot be read: {error}.", Exit.KERNEL) from error


def residues(host: Host) -> list[Record]:
    """Rows as ListResidues gives them; without bytes where memory.stat cannot be had."""
    try:
        if host.hierarchy.version == 1:
            return [without_dying(asdict(residue)) for residue in host.backend.residues()]
        with host.hierarchy.open("/") as cgroup:
            found = list(walk(cgroup, host.features.dying_key))
    except (KernelError, OSError) as error:
        raise Failure(f"The cgroup tree cannot be read: {error}.", Exit.KERNEL) from error
    return [asdict(_with_bytes(host, residue)) for residue in found]


def _with_bytes(host: Host, residue: Residue) -> Residue:
    try:
        with host.hierarchy.open(residue.path) as cgroup:
            return Family.read(cgroup).residue(residue.path, residue.inode, residue.dying)
    except (CgroupGone, Unsupported):
        return residue
    except (KernelError, OSError):  # another user's, or a file that this kernel writes otherwise
        return residue


def put_back(roots: Roots) -> Restored:
    """What `logindguardd --restore` does."""
    if os.geteuid() != 0:
        raise Failure("Without the running service only root can put memory.min back.", Exit.DENIED)
    hierarchy = detect(roots.proc)
    ledger = Ledger(roots.run / "logindguard")
    if hierarchy is None or not ledger.path.exists():
        return Restored()
    try:
        ledger.prepare()
        return restore(hierarchy, ledger)
    except LedgerError as error:
        raise Failure(f"memory.min was not put back: {error}.", Exit.KERNEL) from error
