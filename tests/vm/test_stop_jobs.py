"""Stops by request: reclaim begins with the stop job, and goes on until the cgroup is gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from logindguard.model import ReclaimRecord, Source
from tests.conftest import Tell
from tests.vm.conftest import on
from tests.vm.hook_host import HookHost
from tests.vm.host import FILES, READ_BYTES
from tests.vm.machine import Machine, wait_until
from tests.vm.system import BOOKWORM, BOOKWORM_V1, TRIXIE

pytestmark = [on(BOOKWORM, TRIXIE, BOOKWORM_V1), pytest.mark.timeout(600)]

RESIST_SEC = 8  # until systemd loses patience
# Reads a file before it is told to end, and another one after.
STUBBORN = (
    f"trap '' TERM HUP PIPE; cat {FILES}/stop-0 >/dev/null; touch /var/tmp/up;"
    f" sleep 4; cat {FILES}/stop-1 >/dev/null; while :; do sleep 1; done"
)
DROPIN = "/run/systemd/system/session-.scope.d"
LOGIND = "/run/systemd/logind.conf.d"


@pytest.fixture
def host(hook_host: HookHost) -> Iterator[HookHost]:
    """Scopes end soon, and only what is done before the removal is done."""
    machine = hook_host.machine
    hook_host.make_files("stop", 2, read_before=True)
    setting = f"printf '[Scope]\\nTimeoutStopSec={RESIST_SEC}\\n' >{DROPIN}/test.conf"
    machine.run(f"rm -f /var/tmp/up; mkdir -p {DROPIN}; {setting}; systemctl daemon-reload")
    with hook_host.nothing_after():
        yield hook_host
    machine.run(f"rm -r {DROPIN}; systemctl daemon-reload")


@contextmanager
def killing(machine: Machine) -> Iterator[None]:
    setting = f"printf '[Login]\\nKillUserProcesses=yes\\n' >{LOGIND}/test.conf"
    machine.run(f"mkdir -p {LOGIND}; {setting}; systemctl restart systemd-logind")
    try:
        yield
    finally:
        machine.run(f"rm {LOGIND}/test.conf; systemctl restart systemd-logind")


def is_up(machine: Machine) -> None:
    wait_until(
        lambda: machine.run("test -e /var/tmp/up", check=False).status == 0,
        timeout_sec=60,
        what="a process that resists runs",
    )


def record_of(host: HookHost, unit: str) -> ReclaimRecord:
    def found() -> list[ReclaimRecord]:
        return [each for each in host.before(Source.SYSTEMD1) if each.teardowns[0].unit == unit]

    return wait_until(found, timeout_sec=90, what=f"a record of {unit} from before its removal")[0]


REQUESTS = (
    "loginctl terminate-session {number}",
    pytest.param("loginctl terminate-user bob", marks=pytest.mark.load),
    pytest.param("systemctl stop --no-block session-{number}.scope", marks=pytest.mark.load),
)


@pytest.mark.parametrize(
    "request_to_end", REQUESTS, ids=["terminate-session", "terminate-user", "systemctl-stop"]
)
def test_a_session_with_a_process_that_resists(host: HookHost, request_to_end: str, tell: Tell) -> None:
    machine = host.machine
    session = machine.session("bob", f'exec setsid sh -c "{STUBBORN}"')
    is_up(machine)
    number = session.cgroup.rpartition("session-")[2].removesuffix(".scope")
    machine.run(request_to_end.format(number=number))
    record = record_of(host, f"session-{number}.scope")
    session.close()
    tell(told(record))
    assert record.freed_bytes >= READ_BYTES * 3 // 2  # more than the first file


def test_kill_user_processes(host: HookHost, tell: Tell) -> None:
    """What a user leaves running keeps the hook from reclaiming; the stop job that follows does."""
    machine = host.machine
    with killing(machine):
        session = machine.session("bob", f'setsid sh -c "{STUBBORN}" </dev/null >/dev/null 2>&1 & cat')
        is_up(machine)
        session.close()
        record = record_of(host, session.cgroup.rpartition("/")[2])
    tell(told(record))
    assert record.freed_bytes >= READ_BYTES * 3 // 2


@pytest.mark.load
def test_a_users_manager_after_the_last_session(host: HookHost, tell: Tell) -> None:
    """Its stop job comes UserStopDelaySec= (10 s) after the logout."""
    machine = host.machine
    run = f"systemd-run --user --quiet --unit=stubborn --property=TimeoutStopSec={RESIST_SEC}"
    machine.login("bob", f'{run} sh -c "{STUBBORN}"')
    is_up(machine)
    record = record_of(host, "user@1001.service")
    tell(told(record))
    assert record.freed_bytes >= READ_BYTES // 2


def told(record: ReclaimRecord) -> str:
    return (
        f"{record.teardowns[0].unit}: {record.freed_bytes >> 20} MiB in {record.writes} writes within"
        f" {record.wall_usec / 1e6:.1f} s, until it was gone: {record.reason}"
    )
