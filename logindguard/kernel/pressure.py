"""Memory of the host and its pressure, from procfs.

Hard facts:

- PSI (Documentation/accounting/psi.rst): `some avg10` is the share of the last
  10 s in which at least one task waited for the resource, in percent. With
  psi_disabled the file is there and reading it gives EOPNOTSUPP.
- `MemAvailable` estimates what can be had without swapping; it counts page
  cache that a shield would hold back, which has to be taken off it.
- Swap counts as on while SwapTotal is not 0, full or not: a full one drains.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class HostMemory:
    free_bytes: int
    available_bytes: int
    swap_on: bool
    memory_some_percent: float | None  # None: this kernel does not measure pressure


def read_host_memory(proc: Path = Path("/proc")) -> HostMemory:
    """One reading; raises OSError or ValueError only where procfs itself is broken."""
    fields: dict[str, int] = {}
    for line in (proc / "meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("MemFree", "MemAvailable", "SwapTotal"):
            fields[name] = int(rest.split()[0]) << 10
    return HostMemory(
        free_bytes=fields.get("MemFree", 0),
        available_bytes=fields.get("MemAvailable", 0),
        swap_on=fields.get("SwapTotal", 0) > 0,
        memory_some_percent=some_percent("memory", proc),
    )


def some_percent(resource: str, proc: Path = Path("/proc")) -> float | None:
    """`some avg10` of "memory", "cpu" or "io"; None where the kernel does not measure it."""
    try:
        text = (proc / "pressure" / resource).read_text()
    except OSError:
        return None
    for line in text.splitlines():
        words = line.split()
        if words and words[0] == "some":
            for word in words[1:]:
                if word.startswith("avg10="):
                    return float(word.removeprefix("avg10="))
    return None
