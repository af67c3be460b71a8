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
    for profile in ("without", "with"):
        with nullcontext() if profile == "with" else hook_host.profile_off():
            took = [end_of_a_session(hook_host, begin, end) for _ in range(times)]
        tell(f"{times} logouts {profile} the hook: {medians(took)}")
    hook_host.wait_served()
    assert hook_host.machine.login("alice", "echo in").stdout == "in\n"


@pytest.mark.load
def test_a_killed_bus_holds_up_nobody_longer(hook_host: HookHost, tell: Tell) -> None:
    """Systemd and logind do not recover from that: the machine is booted anew after each."""
    for profile in ("without", "with"):
        with nullcontext() if profile == "with" else hook_host.profile_off():
            took = [end_of_a_session(hook_host, "pkill -KILL -x dbus-daemon", "true")]
            assert hook_host.machine.login("alice", "echo in", timeout_sec=180).stdout == "in\n"
            hook_host.machine.run("sync")
            hook_host.machine.reset()
        tell(f"a logout {profile} the hook: {medians(took)}")
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


def medians(took: list[Times]) -> str:
    inside, after = ([times[each] for times in took] for each in (0, 1))
    return f"close_session {median(inside)}, from the last process to the rmdir {median(after)}"


def median(times: list[float]) -> str:
    return f"{statistics.median(times):.0f} (at most {max(times):.0f}) ms"


STAND_INS = {
    "nothing but true(1)": "/bin/true",
    "a hook that leaves at once": "exit 0",
    "the deadline alone": "/usr/bin/timeout -s KILL 0.2 /bin/sleep 1; exit 0",
    "a call without a deadline": "/usr/bin/dbus-send --system --print-reply --dest=org.freedesktop.DBus"
    " /org/freedesktop/DBus org.freedesktop.DBus.GetId >/dev/null 2>&1; exit 0",
}


@pytest.mark.load
def test_what_emulation_itself_takes(hook_host: HookHost, tell: Tell) -> None:
    """In the place of the hook what does less, by the same pam_exec: the deadline cannot cover this."""
    for name, script in STAND_INS.items():
        with hook_host.stand_in(script):
            took = [end_of_a_session(hook_host) for _ in range(LOGOUTS)]
        tell(f"{LOGOUTS} logouts with {name}: {medians(took)}")


@pytest.mark.load
def test_removals_on_busy_cpus(hook_host: HookHost, tell: Tell) -> None:
    """Of scopes whose reclaim may be under way still, and of other cgroups meanwhile."""
    host = hook_host
    host.make_files("busy", 1, FILE_BYTES, read_before=True)
    uncached = f"dd status=none iflag=nocache count=0 if={FILES}/busy-0"
    for guard in ("without", "with"):
        with (
            nullcontext() if guard == "with" else host.no_guard(),
            busy_cpus(host),
            probed(host) as probe,
        ):
            took = [
                end_of_a_session(host, reads=f"{uncached}; cat {FILES}/busy-0 >/dev/null; ")
                for _ in range(LOGOUTS)
            ]
        tell(
            f"all CPUs taken, {LOGOUTS} logouts {guard} the guard, each with {FILE_BYTES >> 20} MiB read:"
            f" {medians(took)}; a mkdir or rmdir elsewhere meanwhile, in ms: {probe}"
        )


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
