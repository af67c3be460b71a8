"""A slice with live units that have memory.min of their own, where windows are held open."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab import hold_window
from tests.vm.host import MIB
from tests.vm.machine import Machine, wait_until
from tests.vm.ssh import Session

SLICE = "lgfault.slice"
CGROUP = f"/{SLICE}"
OWN_BYTES = 64 * MIB
# Unit files, as an administrator has them, so that a boot brings them back. Started and with a process.
UNITS = {"kept": "64M", "most": "infinity", "zero": "0", "bare": ""}
FILE = "/var/lgfault"
FILE_BYTES = 32 * MIB
PROGRAM = "/var/tmp/hold_window.py"


@contextmanager
def ground(machine: Machine) -> Iterator[None]:
    for name, minimum in UNITS.items():
        unit = f"[Service]\nSlice={SLICE}\nExecStart=sleep infinity\n"
        unit += f"MemoryMin={minimum}\n" if minimum else ""
        unit += "[Install]\nWantedBy=multi-user.target\n"
        machine.run(f"cat >/etc/systemd/system/lgfault-{name}.service", data=unit.encode())
    units = " ".join(f"lgfault-{name}.service" for name in UNITS)
    machine.run(
        f"systemctl daemon-reload; systemctl enable --now {units};"
        f" head -c {FILE_BYTES} /dev/zero >{FILE}; sync",
        timeout_sec=120,
    )
    try:
        yield
    finally:
        machine.run(
            f"systemctl disable --now {units}; systemctl revert {units} {SLICE};"
            f" rm -f {FILE} /etc/systemd/system/lgfault-*.service; systemctl daemon-reload",
            check=False,
        )


@contextmanager
def windows(machine: Machine) -> Iterator[Session]:
    """Answers `hold` and `go`; see hold_window.py."""
    machine.put(Path(hold_window.__file__), PROGRAM)
    with machine.session("root", f"python3 {PROGRAM} --slice {SLICE} --file {FILE}") as session:
        yield session


def held(session: Session) -> dict[str, int]:
    """Open a window and stop the guard in it: memory.min as the guard set it, by cgroup."""
    entries = json.loads(session.ask("hold", timeout_sec=300))
    return {entry["path"]: entry["ours_bytes"] for entry in entries}


def minima(machine: Machine) -> dict[str, str]:
    """Each memory.min of the machine that is not 0."""
    shown = machine.run(
        "cd /sys/fs/cgroup && find . -name memory.min -exec grep -H -v '^0$' {} +", check=False
    ).stdout
    found = dict(line.removeprefix(".").split(":") for line in shown.splitlines())
    return {path.removesuffix("/memory.min"): value for path, value in found.items()}


def settles(machine: Machine, wanted: dict[str, str]) -> None:
    """Returns when `minima` is just that: a window elsewhere may be open for a moment."""
    seen: list[dict[str, str]] = []

    def as_wanted() -> bool:
        seen.append(minima(machine))
        return seen[-1] == wanted

    try:
        wait_until(as_wanted, timeout_sec=120, what="memory.min is as its owners set it", every_sec=0.5)
    except TimeoutError:
        assert seen[-1] == wanted  # for its difference
        raise


def expected() -> dict[str, str]:
    """What `minima` is by the unit files alone."""
    return {f"{CGROUP}/lgfault-kept.service": str(OWN_BYTES), f"{CGROUP}/lgfault-most.service": "max"}
