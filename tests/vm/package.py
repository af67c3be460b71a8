"""The Debian package under test: the newest in dist/, built first when the sources are newer."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.vm.image import CHECKOUT, RigError

SOURCES = (
    *("NEWS.md", "README.md", "completions", "dbus", "debian", "docs/prometheus", "docs/sweep.md"),
    *("docs/trust.md", "hook", "logindguard", "man", "polkit", "pyproject.toml", "units"),
)
MAKE_TIMEOUT_SEC = 300


def deb(*, told: Callable[[str], None] = lambda text: None) -> Path:
    """The package built from this checkout; raises RigError when `make deb` fails."""
    found = _newest()
    if found is None or found.stat().st_mtime < max(path.stat().st_mtime for path in _sources()):
        told("building the package")
        _make_deb()
        found = _newest()
    if found is None:
        raise RigError("make deb left no logindguard_*_all.deb in dist/")
    return found


def _newest() -> Path | None:
    return max(
        CHECKOUT.glob("dist/logindguard_*_all.deb"), key=lambda path: path.stat().st_mtime, default=None
    )


def _sources() -> Iterator[Path]:
    for name in SOURCES:
        top = CHECKOUT / name
        for path in (top, *top.rglob("*")) if top.exists() else ():
            if path.is_file() and "__pycache__" not in path.parts:
                yield path


def _make_deb() -> None:
    try:
        done = subprocess.run(
            ["make", "--no-print-directory", "deb"],
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=MAKE_TIMEOUT_SEC,
        )
    except subprocess.TimeoutExpired as error:
        raise RigError(f"make deb did not end within {MAKE_TIMEOUT_SEC} s") from error
    if done.returncode != 0:
        raise RigError(f"make deb failed with status {done.returncode}:\n{done.stdout[-4000:]}")
