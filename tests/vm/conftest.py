"""Machines for tests: one boot per system and run, one at a time, the logs beside every failure.

Tests that ask for `machine` run on every system of PRECISE; `@on(...)` names others.
Which of these systems are booted is said by LOGINDGUARD_SYSTEMS (names, or "all"); Debian 12 alone
where it is not set, as the others take longer than a run between two changes should. What is marked
`load` is run with LOAD=full alone (make test-load), for the same reason.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import neighbour
from tests.vm.hook_host import HookHost
from tests.vm.host import FILES, Host
from tests.vm.machine import Machine
from tests.vm.package import deb
from tests.vm.system import BOOKWORM, PRECISE, SYSTEMS, System

CHOSEN = os.environ.get("LOGINDGUARD_SYSTEMS", BOOKWORM.name).split()
FULL_LOAD = os.environ.get("LOAD") == "full"
# Includes building the image and booting it, for the test that comes first.
TIMEOUT_SEC = 600


def on(*systems: System) -> pytest.MarkDecorator:
    """The systems that a test, or a module by `pytestmark`, runs on."""
    return pytest.mark.parametrize("system", systems, ids=[each.name for each in systems], indirect=True)


@pytest.hookimpl(hookwrapper=True, tryfirst=True)  # type: ignore[untyped-decorator]  # pluggy's own
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Marks them before -m deselects, and orders them after pytest has, which knows only parameters."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker("vm")
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TIMEOUT_SEC))
    left_out = [item for item in items if not _is_chosen(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    yield
    items.sort(key=_boot_order)


def _is_chosen(item: pytest.Item) -> bool:
    system = _system(item)
    if system is None:
        return True
    return bool({system.name, "all"} & {*CHOSEN}) and (FULL_LOAD or not item.get_closest_marker("load"))


def _system(item: pytest.Item) -> System | None:
    parameters: dict[str, object] = item.callspec.params if hasattr(item, "callspec") else {}
    system = parameters.get("system")
    return system if isinstance(system, System) else None


def _boot_order(item: pytest.Item) -> tuple[int, bool]:
    """All tests of one system together, so that it boots once and ends before the next one boots.

    First those that look at what was booted.
    """
    system = _system(item)
    place = SYSTEMS.index(system) + 1 if system else 0
    return place, item.path.name != "test_systems.py"


@pytest.hookimpl(hookwrapper=True)  # type: ignore[untyped-decorator]  # pluggy's own
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    if report.failed and isinstance(item, pytest.Function):
        for name, value in item.funcargs.items():
            if isinstance(value, Machine):
                report.sections.append((f"the machine {name}", value.report()))


@pytest.fixture(scope="session", params=PRECISE, ids=lambda system: system.name)
def system(request: pytest.FixtureRequest) -> System:
    """What is booted; a machine lives until the first test with another one."""
    chosen: System = request.param
    return chosen


@pytest.fixture(scope="session")
def bare_machine(system: System) -> Iterator[Machine]:
    """Booted; without the package unless `machine` is in use too."""
    with Machine(system) as machine:
        yield machine


@pytest.fixture(scope="session")
def machine(bare_machine: Machine) -> Machine:
    """With this checkout's package installed, as its postinst leaves it: running."""
    bare_machine.install_deb(deb())
    return bare_machine


@pytest.fixture
def host(machine: Machine) -> Iterator[Host]:
    """The guard runs, and its records count from now on."""
    machine.put(Path(neighbour.__file__), "/var/tmp/neighbour.py")
    host = Host(machine)
    host.guard("start")
    host.mark()
    yield host
    machine.run(f"rm -rf {FILES}")
    host.guard("start")


@pytest.fixture
def hook_host(machine: Machine) -> Iterator[HookHost]:
    """The same for tests of what is done before a removal; alice's slice stays."""
    machine.run("loginctl enable-linger alice")
    host = HookHost(machine)
    host.guard("start")
    machine.login("alice", "true")  # whatever a first login reads and writes
    host.mark()
    yield host
    machine.run(f"rm -rf {FILES}; loginctl disable-linger alice")
    host.guard("start")
