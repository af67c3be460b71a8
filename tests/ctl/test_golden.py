"""What a person sees, byte by byte, at two widths, with and without colour.

    LOGINDGUARD_GOLDEN=write python3 -m pytest tests/ctl/test_golden.py

writes the files anew; look at the difference before it is committed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from logindguard.config_values import RULES
from logindguard.ctl.roots import Roots
from logindguard.ctl.terminal import width
from logindguard.kernel.inventory import FILE

from . import host
from .conftest import Command, program, write
from .fake_service import Running
from .past import Past

GOLDEN = Path(__file__).parent / "golden"
SERVICE = {
    "status": ["status"],
    "list": ["list"],
    "history": ["history"],
    "history-filtered": ["history", "--user=61001", "-n", "5"],
    "history-empty": ["history", "--unit=nothing.*"],
    "show": ["show", "9f3cbb"],
    "blame": ["blame"],
    "report": ["report", "--since=-7d"],
    "explain": ["explain", "user-61001.slice"],
    "blame-user": ["blame", "--by=user", "-n", "2"],
    "plan": ["sweep", "--dry-run"],
    "top": ["top", "-b", "-n", "1"],
    "doctor": ["doctor"],
}
KERNEL = {
    "status-kernel": ["status"],
    "list-kernel": ["list"],
    "explain-kernel": ["explain", "user.slice"],
    "inventory": ["inventory"],
    "inventory-counts": ["inventory"],
    "doctor-kernel": ["doctor"],
    "doctor-full": ["doctor", "--full"],
    "config": ["config"],
    "help": ["--help"],
}
SETTINGS = ("roots", "log_level", "units.include", "units.exclude", "sweep.interval", "sweep.grace")
JOURNAL = """\
printf 'Jan 01 09:56:58 host logindguard[812]: user.slice: released 4.9M of page cache of session 67\\n'
printf 'Jan 01 09:58:58 host logindguard[812]: user.slice: released 5.2M of page cache of dying memcgs\\n'
"""


def matches(name: str, printed: str) -> None:
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("LOGINDGUARD_GOLDEN") == "write":
        path.write_text(printed)
    assert printed == path.read_text()


@pytest.mark.parametrize("colour", [False, True], ids=["plain", "colour"])
@pytest.mark.parametrize("columns", [80, 200])
class TestGolden:
    @pytest.mark.parametrize("name", SERVICE)
    def test_service(
        self, name: str, columns: int, colour: bool, command: Command, roots: Roots, running: Running
    ) -> None:
        host.debian(roots)
        program(command.directory, "journalctl", JOURNAL if name == "status" else "exit 0")
        command.history = Past() if name == "report" else None
        ran = command(*SERVICE[name], columns=columns, colour=colour)
        assert (ran.status, ran.err) == (0, "")
        self._check(name, columns, colour, ran.out)

    @pytest.mark.parametrize("name", KERNEL)
    def test_kernel(
        self,
        name: str,
        columns: int,
        colour: bool,
        command: Command,
        roots: Roots,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        host.debian(roots)
        some = {key: rule for key, rule in RULES.items() if key in SETTINGS}  # a new one changes no picture
        monkeypatch.setattr("logindguard.ctl.verbs.config.RULES", some)
        host.settings(roots, "sweep:\n  interval: 10min\n", "units:\n  exclude: [run-*.service]\n")
        if name == "inventory":
            write(roots.sys / FILE, host.LRU_GEN)
            write(roots.sys / "kernel/mm/lru_gen/enabled", "0x0007\n")
        ran = command(*KERNEL[name], columns=columns, colour=colour)
        self._check(name, columns, colour, ran.out)

    def _check(self, name: str, columns: int, colour: bool, printed: str) -> None:
        if not colour:
            assert "\x1b" not in printed
            assert name == "show" or max(width(line) for line in printed.splitlines()) <= columns
        matches(f"{name}-{columns}-{'colour' if colour else 'plain'}", printed)
