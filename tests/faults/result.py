"""The last result of each full run, kept in docs/faults.json with its date and commit."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
FILE = CHECKOUT / "docs/faults.json"

Keep = Callable[[str, Mapping[str, object]], None]


def keep_result(name: str, figures: Mapping[str, object]) -> None:
    """Replaces what the file has under `name`; other names stay."""
    kept = json.loads(FILE.read_text()) if FILE.exists() else {}
    kept[name] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": _commit(),
        "machine": f"Linux {os.uname().release}, {os.cpu_count()} CPUs",
        **figures,
    }
    FILE.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")


def _commit() -> str:
    """With "-dirty" where more than the results was changed since; empty outside a git checkout."""
    commit = _git("rev-parse", "--short", "HEAD")
    results = (f":!{FILE.relative_to(CHECKOUT)}", ":!docs/benchmarks", ":!docs/benchmarks.md")
    changed = _git("status", "--porcelain", "--", ".", *results)
    return f"{commit}-dirty" if changed else commit


def _git(*words: str) -> str:
    told = subprocess.run(
        ["git", "-c", f"safe.directory={CHECKOUT}", *words],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stdout.strip()
