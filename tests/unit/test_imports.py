"""Imports point one way: the layout is the architecture, and this is its table."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "logindguard"

# What each part may import of the others; a package may always import from itself.
MAY_IMPORT: dict[str, set[str]] = {
    "model": set(),
    "config": set(),
    "text": set(),
    "paths": set(),
    "notify": set(),
    "config_values": {"config", "text"},
    "config_file": {"config", "config_values", "text"},
    "options": {"__version__", "config_file"},
    "policy": {"config", "model"},
    "pace": set(),
    "settle": {"config", "model"},
    "statistics": {"model", "owners"},
    "metrics": {"model", "statistics", "text"},
    "refaults": {"kernel", "model", "reclaimer", "text"},
    "ladder": {"config", "kernel", "model"},
    "verdict": {"kernel", "text"},
    "standings": {"ladder"},
    "climb": {"kernel", "ladder", "model", "reclaimer", "standings", "verdict"},
    "room": {"config", "kernel"},
    "demands": {"kernel", "model"},
    "report": {"blame", "model", "owners", "statistics"},
    "sampler": {"config", "kernel", "metrics", "model", "reclaimer", "record"},
    "owners": {"model", "paths"},
    "blame": {"model", "owners"},
    "pause": set(),
    "kernel": {"model"},
    "signals": {"kernel", "model", "paths"},
    "dbus": {"__version__", "model", "paths", "signals"},
    "record": {"config_file", "model", "text"},
    "reclaimer": {"config", "kernel", "model", "policy"},
    "ending": {"model", "reclaimer"},
    "turns": set(),
    "guard": {"ending", "kernel", "model", "reclaimer", "settle", "turns"},
    "hook": {"config", "dbus", "ending", "kernel", "model", "reclaimer", "signals"},
    "sweep": {*("climb", "demands", "kernel", "model", "pace", "policy", "reclaimer", "room"), "standings"},
    "jobs": {"demands", "kernel", "model", "sweep"},
    "readings": {"kernel", "model", "reclaimer"},
    "recent": {"model"},
    "plan": {"config", "kernel", "model", "policy"},
    "overview": {
        *("__version__", "guard", "kernel", "metrics", "model", "pause", "readings", "reclaimer"),
        *("refaults", "statistics", "sweep", "text"),
    },
    "control": {
        *("config_file", "dbus", "guard", "jobs", "kernel", "model", "overview", "pause", "plan", "readings"),
        *("recent", "reclaimer", "record", "sweep"),
    },
    "ctl": {
        *("__version__", "blame", "config_file", "config_values", "dbus", "kernel", "model", "owners"),
        *("metrics", "paths", "record", "report", "signals", "text", "verdict"),
    },
}
DBUS_NEXT = {"signals", "dbus"}  # unmaintained upstream: it stays behind our own types


def imports(path: Path) -> set[str]:
    """Absolute dotted names that a module imports."""
    here = ["logindguard", *path.relative_to(PACKAGE).parts[:-1]]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{stem}.{alias.name}" for alias in node.names} if not node.module else {stem}
    return found


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_imports_point_one_way() -> None:
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        mine = part(path)
        if mine in ("daemon", "__main__", "__init__"):
            continue
        for name in imports(path):
            words = name.split(".")
            if words[0] != "logindguard" or len(words) == 1:
                continue
            if words[1] != mine and words[1] not in MAY_IMPORT[mine]:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert wrong == []


def test_dbus_next_is_confined() -> None:
    users = {
        part(path)
        for path in PACKAGE.rglob("*.py")
        if any(name.split(".")[0] == "dbus_next" for name in imports(path))
    }
    assert users == DBUS_NEXT


def test_a_module_has_one_job() -> None:
    long = [
        f"{path.relative_to(PACKAGE)}: {lines} lines"
        for path in PACKAGE.rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 350
    ]
    assert long == []
