"""Machines for tests: one boot per system and run, the logs of it beside every failure."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.vm.machine import Machine
from tests.vm.package import deb
from tests.vm.system import BOOKWORM

# Includes building the image and booting it, for the test that comes first.
TIMEOUT_SEC = 600


@pytest.hookimpl(tryfirst=True)  # type: ignore[untyped-decorator]  # before -m deselects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker("vm")
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TIMEOUT_SEC))


@pytest.hookimpl(hookwrapper=True)  # type: ignore[untyped-decorator]  # pluggy's own
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    if report.failed and isinstance(item, pytest.Function):
        for name, value in item.funcargs.items():
            if isinstance(value, Machine):
                report.sections.append((f"the machine {name}", value.report()))


@pytest.fixture(scope="session")
def bare_bookworm() -> Iterator[Machine]:
    """Debian 12, booted; without the package unless `bookworm` is in use too."""
    with Machine(BOOKWORM) as machine:
        yield machine


@pytest.fixture(scope="session")
def bookworm(bare_bookworm: Machine) -> Machine:
    """Debian 12 with this checkout's package installed, as its postinst leaves it: running."""
    bare_bookworm.install_deb(deb())
    return bare_bookworm
