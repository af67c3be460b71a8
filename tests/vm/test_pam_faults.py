"""What the hook adds to the end of a session when what it asks does not answer, and on busy CPUs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from tests.conftest import Tell
from tests.lab import end_of_scope, rmdir_probe
from tests.vm.conftest import FULL_LOAD, on
from tests.vm.hook_host import HookHost
from tests.vm.host import FILES, MIB, UNIT
from tests.vm.machine import wait_until
from tests.vm.system import BOOKWORM, BOOKWORM_V1, TRIXIE

pytestmark = [on(BOOKWORM, TRIXIE, BOOKWORM_V1), pytest.mark.timeout(1800)]

LOGOUTS = 10 if FULL_LOAD else 1
FILE_BYTES = 64 * MIB

FAULTS = {
    "healthy": ("true", "true"),
    "guard stopped": (f"systemctl stop {UNIT}", f"systemctl start {UNIT}"),
    "guard SIGSTOPped": (f"systemctl kill -s STOP {UNIT}", f"systemctl kill -s CONT {UNIT}"),
    "polkit SIGSTOPped": (
        "systemctl start polkit; systemctl kill -s STOP polkit",
        "systemctl kill -s CONT polkit",
    ),
    "bus SIGSTOPped": ("pkill -STOP -x dbus-daemon", "pkill -CONT -x dbus-daemon"),
}
QUICK = ("healthy", "guard SIGSTOPped")


@pytest.mark.parametrize(
    "fault", [each if each in QUICK else pytest.param(each, marks=pytest.mark.load) for each in FAULTS]
)
def test_no_fault_holds_up_the_end_of_a_session(hook_host: HookHost, fault: str, tell: Tell) -> None:
    """Each beside the same fault without the profile."""
    begin, end = FAULTS[fault]
    # Where the bus hangs, pam_systemd itself waits for it for 90 s, with the profile or without.
    times = 1 if fault.startswith("bus") else LOGOUTS
    took = {}
    for profile in ("without", "with"):
        with nullcontext() if profile == "with" else hook_host.profile_off():
            took[profile] = [end_of_a_session(hook_host, begin, end) for _ in range(times)]
    tell(f"{times} logouts: {compared(took)}")
    hook_host.wait_served()
    assert hook_host.machine.login("alice", "echo in").stdout == "in\n"


@pytest.mark.load
def test_a_killed_bus_holds_up_nobody_longer(hook_host: HookHost, tell: Tell) -> None:
    """Systemd and logind do not recover from that: the machine is booted anew after each."""
    took = {}
    for profile in ("without", "with"):
        with nullcontext() if profile == "with" else hook_host.profile_off():
            took[profile] = [end_of_a_session(hook_host, "pkill -KILL -x dbus-daemon", "true")]
            assert hook_host.machine.login("alice", "echo in", timeout_sec=180).stdout == "in\n"
            hook_host.machine.run("sync")
            hook_host.machine.reset()
    tell(compared(took))
    hook_host.wait_served()


Times = tuple[float, float]  # in ms: inside close_session, and from the last process to the removal


def end_of_a_session(host: HookHost, begin: str = "true", end: str = "true", reads: str = "") -> Times:
    host.machine.put(Path(end_of_scope.__file__), "/var/tmp/end_of_scope.py")
    session = host.machine.session("alice", f"{reads}echo open; cat")
    assert session.readline() == "open"
    directory = f"{host.machine.memory_root}{session.cgroup}"
    host.machine.run(f"rm -f /run/watching; {begin}")
    with ThreadPoolExecutor(1) as thread:
        watching = thread.submit(
            host.machine.run, f"python3 /var/tmp/end_of_scope.py {directory} /run/watching", timeout_sec=300
        )
        wait_until(
            lambda: host.machine.run("test -e /run/watching", check=False).status == 0,
            timeout_sec=60,
            what="the session is watched",
        )
        try:
            session.close(timeout_sec=180)
            inside, after = watching.result().stdout.split()
        finally:
            host.machine.run(end)
    return float(inside), float(after)


def compared(took: dict[str, list[Times]]) -> str:
    inside = {profile: [each for each, _ in times] for profile, times in took.items()}
    after = {profile: [each for _, each in times] for profile, times in took.items()}
    parts = [
        f"{what} {median(times['without'])} without the hook, {median(times['with'])} with it"
        for what, times in (("close_session took", inside), ("from the last process to the rmdir", after))
    ]
    return "; ".join(parts)


def median(times: list[float]) -> str:
    return f"{statistics.median(times):.0f} (at most {max(times):.0f}) ms"


@pytest.mark.load
def test_removals_on_busy_cpus(hook_host: HookHost, tell: Tell) -> None:
    """Of scopes whose reclaim may be under way still, and of other cgroups meanwhile."""
    host = hook_host
    host.make_files("busy", 1, FILE_BYTES, read_before=True)
    uncached = f"dd status=none iflag=nocache count=0 if={FILES}/busy-0"
    took, others = {}, {}
    for profile in ("without", "with"):
        with (
            nullcontext() if profile == "with" else host.profile_off(),
            busy_cpus(host),
            probed(host) as probe,
        ):
            took[profile] = [
                end_of_a_session(host, reads=f"{uncached}; cat {FILES}/busy-0 >/dev/null; ")
                for _ in range(LOGOUTS)
            ]
        others[profile] = probe
    tell(f"{LOGOUTS} logouts, each with {FILE_BYTES >> 20} MiB read, all CPUs taken: {compared(took)}")
    for profile, probe in others.items():
        tell(f"a mkdir and rmdir elsewhere meanwhile, {profile} the hook: {probe}")


@contextmanager
def busy_cpus(host: HookHost) -> Iterator[None]:
    burn = "for cpu in $(seq $(nproc)); do (while :; do :; done) & done; wait"
    host.machine.run(f"systemd-run --quiet --unit=burner sh -c {burn!r}")
    try:
        yield
    finally:
        host.machine.run("systemctl stop burner")


@contextmanager
def probed(host: HookHost) -> Iterator[dict[str, float]]:
    """Filled as the block ends: in ms, of one mkdir or rmdir."""
    host.machine.put(Path(rmdir_probe.__file__), "/var/tmp/rmdir_probe.py")
    found: dict[str, float] = {}
    program = f"python3 /var/tmp/rmdir_probe.py {host.machine.memory_root}/probe"
    with host.machine.session("root", program) as probe:
        assert probe.readline() == "ready"
        yield found
        [told] = probe.rest()
        found.update(json.loads(told))
