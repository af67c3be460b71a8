"""Memory of the host and its pressure, from procfs.

Hard facts:

- PSI (Documentation/accounting/psi.rst): `some avg10` is the share of the last
  10 s in which at least one task waited for the resource, in percent. With
  psi_disabled the file is there and reading it gives EOPNOTSUPP.
- `MemAvailable` estimates what can be had without swapping; it counts page
  cache that a shield would hold back, which has to be taken off it.
- Swap counts as on while SwapTotal is not 0, full or not: a full one drains.
- `pswpin` and `pswpout` of /proc/vmstat are pages since the start of the machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .cgroupfs import BadReading


@dataclass(frozen=True, slots=True)
class HostMemory:
    free_bytes: int
    available_bytes: int
    swap_on: bool
    memory_some_percent: float | None  # None: this kernel does not measure pressure


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """What says whether the host has room for something that can wait; None: this kernel does not say."""

    memory_percent: float | None = None  # `some avg10`, as the next two
    cpu_percent: float | None = None
    io_percent: float | None = None
    available_bytes: int | None = None
    swapped_pages: int | None = None  # in and out, since the start of the machine


def read_signs(proc: Path = Path("/proc")) -> Signs:
    """One reading; never raises."""
    try:
        available_bytes = read_host_memory(proc).available_bytes
        swapped = [
            int(line.split()[1])
            for line in (proc / "vmstat").read_text(errors="replace").splitlines()
            if line.startswith(("pswpin ", "pswpout "))
        ]
    except (BadReading, OSError, ValueError, IndexError):
        available_bytes, swapped = None, []
    return Signs(
        memory_percent=some_percent("memory", proc),
        cpu_percent=some_percent("cpu", proc),
        io_percent=some_percent("io", proc),
        available_bytes=available_bytes,
        swapped_pages=sum(swapped) if swapped else None,
    )


def read_host_memory(proc: Path = Path("/proc")) -> HostMemory:
    """One reading; raises OSError or BadReading only where procfs itself is broken."""
    fields: dict[str, int] = {}
    try:
        for line in (proc / "meminfo").read_text(errors="replace").splitlines():
            name, _, rest = line.partition(":")
            if name in ("MemFree", "MemAvailable", "SwapTotal"):
                fields[name] = int(rest.split()[0]) << 10
    except (ValueError, IndexError) as error:
        raise BadReading(str(proc), "meminfo", str(error)) from error
    return HostMemory(
        free_bytes=fields.get("MemFree", 0),
        available_bytes=fields.get("MemAvailable", 0),
        swap_on=fields.get("SwapTotal", 1) > 0,  # where it is not told, nothing is risked
        memory_some_percent=some_percent("memory", proc),
    )


def some_percent(resource: str, proc: Path = Path("/proc")) -> float | None:
    """`some avg10` of "memory", "cpu" or "io"; None where the kernel does not measure it.

    What cannot be read as a number is as much as can be: who asks holds back then.
    """
    try:
        text = (proc / "pressure" / resource).read_text(errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        words = line.split()
        if words and words[0] == "some":
            for word in words[1:]:
                if word.startswith("avg10="):
                    return _percent(word.removeprefix("avg10="))
    return None


def _percent(text: str) -> float:
    try:
        percent = float(text)
    except ValueError:
        return 100.0
    return percent if 0 <= percent <= 100 else 100.0
