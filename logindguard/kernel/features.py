"""What this kernel can do, found by looking and by writes of zero bytes, not by its version.

Hard facts:

- `memory.reclaim` came with 5.19; a second word `swappiness=N` with 6.11. A request
  for 0 bytes reclaims nothing on any of them, and a word that is not known gives
  EINVAL, so a write of "0 swappiness=0" asks without touching a page.
- Until 6.9 every reclaim walked the whole subtree, dying memcgs included, however
  little was asked; since b82b530740b9 (6.10) a walk ends when enough was found.
  Nothing in the kernel's files tells, so this one is read from the release; it
  only chooses how the cost of a write is predicted, and the cost is measured too.
- 7.1 reparents LRU pages at offline (`lru_reparent_memcg`): such a kernel heals by
  itself. The symbol is looked for in BTF first, which ProtectKernelTunables=
  leaves readable, then in kallsyms, which it hides.
- `memory_recursiveprot` is a mount option of cgroup2 (super options of mountinfo).
- MGLRU: bit 0 of /sys/kernel/mm/lru_gen/enabled; no such file without CONFIG_LRU_GEN.
- `nr_dying_subsys_memory` in cgroup.stat (6.12) counts memcgs alone.
"""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from .cgroupfs import Cgroup, Hierarchy, KernelError, KernelRefused, Unsupported

_CHUNK_BYTES = 1 << 16
_FIRST_PARTIAL_WALKS = (6, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """One bool a feature; `reparents_lru` is None where neither BTF nor kallsyms is readable."""

    memory_reclaim: bool
    swappiness_word: bool
    partial_walks: bool
    mglru: bool
    recursiveprot: bool
    reparents_lru: bool | None
    dying_key: str

    def words(self) -> tuple[str, ...]:
        """Names of what is there, for logs."""
        return tuple(name for name, value in asdict(self).items() if value is True)


def file_contains(path: Path, needle: bytes) -> bool | None:
    """Whether a large file has `needle`, read in small pieces; None when it cannot be read."""
    try:
        with path.open("rb", buffering=0) as file:
            tail = b""
            while chunk := file.read(_CHUNK_BYTES):
                if needle in tail + chunk:
                    return True
                tail = chunk[-len(needle) :]
    except OSError:
        return None
    return False


def _symbol(name: bytes, proc: Path, sys: Path) -> bool | None:
    found = file_contains(sys / "kernel/btf/vmlinux", b"\0" + name + b"\0")
    return found if found is not None else file_contains(proc / "kallsyms", b" " + name + b"\n")


def _takes(cgroup: Cgroup, request: str) -> bool:
    try:
        cgroup.write("memory.reclaim", request)
    except (Unsupported, KernelRefused):
        return False
    return True


def _mglru(sys: Path) -> bool:
    try:
        return bool(int((sys / "kernel/mm/lru_gen/enabled").read_text(), 16) & 1)
    except (OSError, ValueError):
        return False


def version_of(text: str) -> tuple[int, int]:
    """(6, 1) of a release such as "6.1.0-56-amd64"; (0, 0) of what is none."""
    match = re.match(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def probe(
    hierarchy: Hierarchy, root: str = "/", *, proc: Path = Path("/proc"), sys: Path = Path("/sys")
) -> Features:
    """Look, and ask on the cgroup `root`, the top of what the program is confined to.

    A kernel that heals itself is not asked, so nothing is written there at all.
    """
    seen = look(hierarchy, proc=proc, sys=sys)
    if hierarchy.version == 1 or seen.reparents_lru:
        return seen
    with hierarchy.open(root) as cgroup:
        reclaim = _takes(cgroup, "0")
        return replace(
            seen, memory_reclaim=reclaim, swappiness_word=reclaim and _takes(cgroup, "0 swappiness=0")
        )


def look(hierarchy: Hierarchy, *, proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> Features:
    """The same by reading alone, which any user may; `swappiness_word` cannot be read and is False."""
    dying_key = "nr_dying_descendants"
    if hierarchy.version == 2:
        with hierarchy.open("/") as cgroup:
            try:
                cgroup.dying("nr_dying_subsys_memory")
                dying_key = "nr_dying_subsys_memory"
            except KernelError:
                pass  # before 6.12 only cgroups are counted, which is an upper bound
    return Features(
        memory_reclaim=hierarchy.version == 2 and (hierarchy.mount / "memory.reclaim").exists(),
        swappiness_word=False,
        partial_walks=version_of(os.uname().release) >= _FIRST_PARTIAL_WALKS,
        mglru=_mglru(sys),
        recursiveprot="memory_recursiveprot" in hierarchy.options,
        reparents_lru=_symbol(b"lru_reparent_memcg", proc, sys),
        dying_key=dying_key,
    )
