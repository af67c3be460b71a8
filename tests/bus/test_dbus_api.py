"""The Manager as shipped: its files against its table, and what the bus's own rules allow."""

from __future__ import annotations

import ast
import asyncio
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from logindguard import __version__
from logindguard.dbus.names import BUS_NAME, MANAGER, PATH, Error
from logindguard.signals.bus import SystemBus

from .conftest import Daemon
from .fakes import Peer
from .rig import Rig, serving

FILES = Path(__file__).parents[2] / "dbus"
TESTS = Path(__file__).parents[1]
NOBODY = 65534


@pytest.fixture
def strict_daemon(short_dir: Path) -> Iterator[Daemon]:
    """With the system bus's rules, where nothing is allowed that a service's own file does not allow."""
    daemon = Daemon(short_dir, policy=FILES / f"{BUS_NAME}.conf")
    yield daemon
    daemon.kill()


@pytest.fixture
async def served(
    strict_daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Rig]:
    bus = await SystemBus.connect(strict_daemon.address, timeout_sec=60)
    async with serving(bus, tmp_path, monkeypatch) as rig:
        yield rig
    bus.close()


async def _as_user(*command: str, uid: int = NOBODY) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"),
        *command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode()


def _shape(interface: ElementTree.Element) -> list[str]:
    """Everything about an interface but its comments."""
    return [ElementTree.canonicalize(ElementTree.tostring(each), strip_text=True) for each in interface]


async def test_the_introspection_file_is_the_interface(strict_daemon: Daemon, served: Rig) -> None:
    """It documents the running service for tools: what is added in methods.py has to be added there."""
    shipped = ElementTree.parse(FILES / f"{MANAGER}.xml").getroot().find("interface")
    assert shipped is not None
    assert shipped.get("name") == MANAGER
    status, out = await _as_user(
        *("busctl", f"--address={strict_daemon.address}", "introspect", "--xml-interface", BUS_NAME, PATH)
    )
    assert status == 0
    running = ElementTree.fromstring(out).find(f"interface[@name='{MANAGER}']")
    assert running is not None
    assert _shape(shipped) == _shape(running)


def test_every_error_is_documented() -> None:
    text = (FILES / f"{MANAGER}.xml").read_text()
    names = {error.rpartition(".")[2]: error for error in Error}
    ours = [name for name, error in names.items() if error.startswith(f"{BUS_NAME}.Error.")]
    assert [name for name in ours if name not in text] == []
    told = re.findall(r"Errors:\s+([^.]*)", text)
    assert told
    for name in re.findall(r"[A-Z][a-z]+(?:[A-Z][a-z]+)+", " ".join(told)):
        assert name in names


def test_every_member_and_error_is_in_a_test() -> None:
    """One that is added to the interface is added to a test, which names it as it is called."""
    written: set[str] = set()
    for file in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                written |= set(re.findall(r"\w+", node.value))
    interface = ElementTree.parse(FILES / f"{MANAGER}.xml").getroot().find("interface")
    assert interface is not None
    members = [each.get("name") for each in interface]
    # Those of the hook are told as sentences there.
    errors = [error.rpartition(".")[2] for error in Error if not error.startswith(f"{BUS_NAME}.Hook.")]
    assert [name for name in (*members, *errors) if name not in written] == []


async def test_anybody_may_read(strict_daemon: Daemon, served: Rig) -> None:
    read = ("busctl", f"--address={strict_daemon.address}", "get-property", BUS_NAME, PATH, MANAGER)
    assert await _as_user(*read, "Version", "Mode", "ModeReason") == (
        0,
        f's "{__version__}"\ns "precise"\ns "a test"\n',
    )


async def test_only_root_may_be_the_guard(strict_daemon: Daemon) -> None:
    script = (
        "import asyncio, sys; from dbus_next.aio import MessageBus\n"
        "async def main():\n"
        "    bus = await MessageBus(bus_address=sys.argv[1]).connect()\n"
        f"    print(await bus.request_name('{BUS_NAME}'))\n"
        "asyncio.run(main())"
    )
    status, out = await _as_user("/usr/bin/python3", "-W", "ignore", "-c", script, strict_daemon.address)
    assert status != 0
    assert "is not allowed to own the service" in out


async def test_the_rules_are_needed(strict_daemon: Daemon, served: Rig) -> None:
    """On the same bus nobody can call what has no rules: the test bus is as strict as the system's."""
    other = await Peer.connect(strict_daemon.address)
    call = ("busctl", f"--address={strict_daemon.address}", "call", other.unique_name, PATH, MANAGER, "M")
    status, out = await _as_user(*call)
    assert status != 0
    assert "Rejected send message" in out or "Access denied" in out
    other.close()


def test_the_activation_file() -> None:
    lines = (FILES / f"{BUS_NAME}.service").read_text().splitlines()
    assert f"Name={BUS_NAME}" in lines
    assert "SystemdService=logindguard.service" in lines
