"""Where this host's files are: one object, so that tests give a tree of their own by constructor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Roots:
    """The real places by default; all others hang under them."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    etc: Path = Path("/etc")
    usr: Path = Path("/usr")
    var: Path = Path("/var")
    run: Path = Path("/run")

    @classmethod
    def under(cls, directory: Path) -> Roots:
        """The same six below another directory."""
        return cls(*(directory / name for name in ("proc", "sys", "etc", "usr", "var", "run")))
