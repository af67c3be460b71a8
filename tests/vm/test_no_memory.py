"""Debian 12 without a memory controller: there is nothing to guard, one sentence says so, logins go on."""

from __future__ import annotations

import os

from tests.vm.conftest import on
from tests.vm.machine import Machine
from tests.vm.system import BOOKWORM_NO_MEMORY
from tests.vm.test_service import UNIT, show

pytestmark = on(BOOKWORM_NO_MEMORY)

SENTENCE = "No cgroup hierarchy with the memory controller is mounted."


def test_the_service_says_so_once_and_is_not_tried_again(machine: Machine) -> None:
    """Installed by its package, which is no error."""
    assert machine.run("dpkg-query -W -f '${db:Status-Status}' logindguard").stdout == "installed"
    assert show(machine, "ActiveState") == "failed"
    assert show(machine, "ExecMainStatus") == str(os.EX_UNAVAILABLE)
    assert show(machine, "NRestarts") == "0"
    assert machine.journal("--unit", UNIT).count(SENTENCE) == 1


def test_logins_go_on(machine: Machine) -> None:
    assert machine.login("alice", "echo in").stdout == "in\n"
    assert machine.journal("--unit", UNIT).count(SENTENCE) == 1  # the hook starts nothing


def test_the_tool_says_so(machine: Machine) -> None:
    ran = machine.run("logindguardctl status", check=False)
    assert ran.status == os.EX_UNAVAILABLE
    assert ran.stderr == f"The service does not run: read from the kernel directly.\n{SENTENCE}\n"
