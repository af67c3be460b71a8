"""What a bench came to, as JSON that a table is made from."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[2]
Value = float | str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One rival's turn. The name of a figure says its unit."""

    rival: str
    figures: dict[str, Value]
    calls: dict[str, int] = field(default_factory=dict)  # how many by their CPU time


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What was wanted, and what came of it."""

    wanted: str
    found: str
    met: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    bench: str
    about: str
    size: Mapping[str, Value]
    sides: list[Side]
    bars: list[Bar]
    load_before: float
    machine: Mapping[str, Value] = field(default_factory=lambda: machine())
    date: str = field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M", time.gmtime()))
    commit: str = field(default_factory=lambda: commit())
    load_after: float = field(default_factory=lambda: load())

    @property
    def name(self) -> str:
        """Of its file: one for each bench and kind of machine, so that a newer one takes its place."""
        return f"{self.bench}-{self.machine['short']}.json"

    def write(self, directory: Path) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / self.name
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")
        return path


def read(path: Path) -> Result:
    given: dict[str, Any] = json.loads(path.read_text())
    given["sides"] = [Side(**side) for side in given["sides"]]
    given["bars"] = [Bar(**bar) for bar in given["bars"]]
    return Result(**given)


def load() -> float:
    return os.getloadavg()[0]


def commit() -> str:
    """Of this checkout, "-dirty" where more than results changed; of a copy, as LOGINDGUARD_COMMIT says."""
    if given := os.environ.get("LOGINDGUARD_COMMIT"):
        return given
    git = ["git", "-c", f"safe.directory={CHECKOUT}", "-C", str(CHECKOUT)]
    results = (":!docs/benchmarks", ":!docs/benchmarks.md", ":!docs/faults.json")
    status = [*git, "status", "--porcelain", "--", ".", *results]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        )
        changed = subprocess.run(status, capture_output=True, text=True, check=True).stdout
        return head.stdout.strip() + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine() -> dict[str, Value]:
    version = 2 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else 1
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    emulated = "QEMU" in _cpu() or "TCG" in _cpu()
    kernel = platform.release()
    return {
        "short": f"linux-{'.'.join(kernel.split('.')[:2])}-v{version}",
        "kernel": kernel,
        "cgroup": f"v{version}",
        "cpu": _cpu() + (" (emulated)" if emulated else ""),
        "cpus": os.cpu_count(),
        "memory_mib": pages >> 20,
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
