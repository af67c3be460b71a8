"""What every test gets: root where it is needed, no task left behind, and a place for figures."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter  # pytest 8 exports it

Tell = Callable[[str], None]
_FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Tell:
    """Takes a measured figure, to be shown at the end of the run, passed or not; with -v at once, too."""
    figures = request.config.stash.setdefault(_FIGURES, [])
    plugins = request.config.pluginmanager

    def take(text: str) -> None:
        figures.append(f"{request.node.name}: {text}")
        if request.config.option.verbose > 0:
            with plugins.getplugin("capturemanager").global_and_fixture_disabled():
                plugins.getplugin("terminalreporter").write_line(f"\n{figures[-1]}")

    return take


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    if figures := config.stash.get(_FIGURES, []):
        terminalreporter.section("figures")
        terminalreporter.line(f"this machine: Linux {os.uname().release}, {os.cpu_count()} CPUs")
        for figure in figures:
            terminalreporter.line(figure)


@pytest.fixture
async def no_task_left() -> AsyncIterator[None]:
    """A task that outlives its test would run on in the daemon too; a canceled one may take its time."""
    before = asyncio.all_tasks()
    yield
    others = asyncio.all_tasks() - before - {asyncio.current_task()}
    left = {task for task in others if not task.done()}
    if left:
        _, left = await asyncio.wait(left, timeout=8)  # one that nobody canceled would wait for longer
    assert not left, f"tasks left running: {left}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.fixturenames.insert(0, "no_task_left")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if os.geteuid() != 0 and any(item.get_closest_marker(name) for name in ("native", "vm")):
        pytest.skip("needs root: make test")
