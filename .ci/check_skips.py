"""Fails when a test was skipped that the list does not name with a reason."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path


def allowed(text: str) -> dict[str, str]:
    """Test name -> reason; a line without a reason is an error."""
    reasons: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, reason = line.strip().partition(" ")
        if not reason.strip():
            raise ValueError(f"line {number}: {name} has no reason")
        reasons[name] = reason.strip()
    return reasons


def skipped(report: Path) -> dict[str, str]:
    """Test name as pytest prints it -> why it was skipped (an expected failure counts as run)."""
    found: dict[str, str] = {}
    for case in ET.parse(report).getroot().iter("testcase"):
        skip = case.find("skipped")
        if skip is None or skip.get("type") == "pytest.xfail":
            continue
        *modules, last = case.get("classname", "").split(".")
        path = "/".join([*modules, last])
        # A test in a class: the class is the last part of `classname`, and no file.
        name = f"{path}.py" if Path(f"{path}.py").exists() else f"{'/'.join(modules)}.py::{last}"
        found[f"{name}::{case.get('name')}"] = skip.get("message", "")
    return found


def main(report: str, listed: str) -> int:
    reasons = allowed(Path(listed).read_text(encoding="utf-8"))
    unlisted = {name: why for name, why in skipped(Path(report)).items() if name not in reasons}
    for name, why in unlisted.items():
        print(f"skipped and not in {listed}: {name} ({why})", file=sys.stderr)
    return 1 if unlisted else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
