"""A checkout on a host with nothing but Python: what works there, and what says plainly that it does not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from logindguard.ctl.exits import Exit

pytestmark = pytest.mark.native

TOP = Path(__file__).parents[2]
NO_BUS = "The service cannot be asked, since python3-dbus-next is not installed"
NO_JOURNAL = "The journal cannot be read: python3-systemd is missing. The service is asked."


def python(*argv: str) -> subprocess.CompletedProcess[str]:
    """Without site-packages, Debian's and others', so with the standard library alone."""
    return subprocess.run(
        ["/usr/bin/python3", "-S", "-B", *argv],
        cwd=TOP,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_it_is_the_standard_library_alone() -> None:
    for module in ("dbus_next", "systemd", "yaml", "sdnotify"):
        assert "ModuleNotFoundError" in python("-c", f"import {module}").stderr


@pytest.mark.parametrize(
    ("verb", "beginning"),
    [
        ("doctor", "● "),
        ("list", ""),
        ("status", "○ logindguard "),
        ("metrics", "# HELP logindguard_up "),
        ("inventory", ""),
    ],
)
def test_what_the_kernel_tells(verb: str, beginning: str) -> None:
    done = python("-m", "logindguard.ctl", verb)
    assert done.returncode in (Exit.OK, Exit.NEGATIVE)  # doctor's answer is no where the host leaks
    assert done.stdout.startswith(beginning)
    assert len(done.stdout.splitlines()) > 0
    assert verb == "inventory" or done.stderr == f"{NO_BUS}: read from the kernel directly.\n"


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["blame"], [NO_JOURNAL, f"{NO_BUS}."]),
        (["report"], [NO_JOURNAL, f"{NO_BUS}."]),
        (["sweep"], [f"{NO_BUS}."]),
    ],
)
def test_what_is_missing_for_the_others(argv: list[str], told: list[str]) -> None:
    done = python("-m", "logindguard.ctl", *argv)
    assert (done.returncode, done.stdout) == (Exit.UNAVAILABLE, "")
    assert done.stderr.splitlines() == told
