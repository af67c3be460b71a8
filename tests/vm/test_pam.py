"""The hook before the removal, with real logins. README.md tells figures of LOAD=full (make test-load)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain

import pytest

from logindguard.model import Source
from tests.conftest import Tell
from tests.vm.conftest import FULL_LOAD, on
from tests.vm.hook_host import HOOK, NOT_FREED, PATIENT_SEC, HookHost
from tests.vm.host import FILES, WRITTEN_BYTES
from tests.vm.machine import Machine, wait_until
from tests.vm.package import deb
from tests.vm.system import BOOKWORM, BOOKWORM_V1, TRIXIE

pytestmark = [on(BOOKWORM, TRIXIE, BOOKWORM_V1), pytest.mark.timeout(1800)]

LOGINS = 50 if FULL_LOAD else 10
MOST = LOGINS * 8 // 10 if FULL_LOAD else LOGINS // 2  # what few logins show on a busy machine is no share
SUDOS, SUDOS_AT_ONCE = 1000, 100
# The rig's own session is always beside what ended: several MiB of a shell and a user's manager.
SHARED = "reclaim: {shared: yes, shared_ratio: 1}\n"


def test_the_profile(machine: Machine) -> None:
    stack = machine.read("/etc/pam.d/common-session").splitlines()
    [ours] = [n for n, line in enumerate(stack) if HOOK in line]
    [theirs] = [n for n, line in enumerate(stack) if "pam_systemd.so" in line]
    assert ours < theirs
    assert HOOK not in machine.read("/etc/pam.d/common-session-noninteractive")
    assert "@include common-session\n" not in machine.read("/etc/pam.d/sudo")


@pytest.mark.parametrize("hook", ["patient", pytest.param("stock", marks=pytest.mark.load)])
def test_logins_that_only_read_leave_nothing(hook_host: HookHost, hook: str, tell: Tell) -> None:
    """With the hook alone. It has 0.2 s as installed, which emulation takes: that share is only told."""
    host = hook_host
    host.make_files("read", LOGINS, read_before=True)
    with host.nothing_after(), host.patient_hook() if hook == "patient" else nullcontext():
        host.machine.login("alice", "true")
        host.drop()
        base = host.dying()
        host.mark()
        for number in range(LOGINS):
            host.machine.login("alice", f"cat {FILES}/read-{number} >/dev/null")
        left = host.dying() - base
        held, pins = host.held(), host.pins(base)
        served = host.before(Source.PAM)
    limit = f"{PATIENT_SEC} s" if hook == "patient" else "0.2 s"
    tell(
        f"{LOGINS} logins that only read, {limit} for the hook: {left} dying more, holding {held} KiB,"
        f" pinned by {pins}"
    )
    if served:
        tell(
            f"{len(served)} served by the hook, {sum(r.freed_bytes for r in served) >> 20} MiB in"
            f" {statistics.median(record.wall_usec for record in served) / 1000:.0f} ms each (median),"
            f" longest write {max(record.longest_write_usec for record in served) / 1000:.0f} ms"
        )
    assert {record.teardowns[0].service for record in served} <= {"sshd", None}
    if hook == "patient":
        assert len(served) >= MOST
        assert pins[NOT_FREED] <= LOGINS - MOST  # what was not given up in time is named


def test_what_was_written_is_left_and_named(hook_host: HookHost, tell: Tell) -> None:
    host = hook_host
    host.make_files("write", LOGINS, read_before=True)
    with host.nothing_after(), host.patient_hook():
        host.drop()
        base = host.dying()
        for n in range(LOGINS):
            write = f"head -c {WRITTEN_BYTES} /dev/urandom >written-{n}"
            host.machine.login("alice", f"cat {FILES}/write-{n} >/dev/null; {write}")
        left = host.dying() - base
        held, pins = host.held(), host.pins(base)
        reasons = [record.reason for record in host.before(Source.PAM)]
    tell(
        f"{LOGINS} logins that read and write 64 KiB: {left} dying more, holding {held} KiB,"
        f" pinned by {pins}; the hook told {counted(reasons)}"
    )
    assert len(reasons) >= MOST
    assert pins[NOT_FREED] <= LOGINS - MOST


@pytest.mark.load
def test_with_the_way_after_nothing_that_was_written_is_left(hook_host: HookHost, tell: Tell) -> None:
    """The hook as installed, and all that follows it; on cgroup v1 with the parent's reclaim allowed."""
    host, v1 = hook_host, hook_host.machine.system.cgroup_version == 1
    host.make_files("whole", LOGINS, read_before=True)
    with host.settings(SHARED) if v1 else nullcontext():
        host.wait_served()
        host.drop()
        base = host.dying()
        host.mark()
        host.log_in("alice", LOGINS, files="whole")
        last_logout = time.monotonic()
        left = {}
        for after_sec in (0, 15, 60):
            time.sleep(max(0.0, last_logout + after_sec - time.monotonic()))
            left[f"{after_sec} s"] = host.machine.dying(host.counted) - base
        before = len(host.before(Source.PAM))
        stolen = sum(record.stolen_pages for record in host.records())
        host.drop()
        floor = host.dying() - base
    tell(
        f"{LOGINS} logins that read and write 64 KiB, with the way after: dying more after the last {left},"
        f" {floor} at the floor; {before} served by the hook, {stolen} pages taken from live cgroups"
    )
    if v1:  # what is left may cost live cgroups no more page cache than it frees
        assert left["60 s"] <= floor + LOGINS // 10
    else:
        assert left["60 s"] <= floor + 2
        assert stolen == 0


def counted(reasons: list[str]) -> dict[str, int]:
    return {reason: reasons.count(reason) for reason in sorted(set(reasons))}


@contextmanager
def sudoer(machine: Machine) -> Iterator[None]:
    machine.run("echo 'alice ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/alice")
    try:
        yield
    finally:
        machine.run("rm /etc/sudoers.d/alice")


# For each line of input the time of so many, each in us. Its own clock: `date` would be another process.
TIMED_SUDO = """bash -c 'while read -r times; do
  for ((n = 0; n < times; n++)); do
    began=${EPOCHREALTIME/./}; sudo true || exit; printf "%d " $((${EPOCHREALTIME/./} - began))
  done; echo
done'"""


@pytest.mark.load
def test_sudo_is_not_slower(hook_host: HookHost, tell: Tell) -> None:
    """Its stack has no hook; that of `sudo -i` and `su` leaves before any contact with the bus.

    In turns, so that what else the machine does falls on both.
    """
    host = hook_host
    took: dict[str, list[list[int]]] = {"without": [], "with": []}
    with sudoer(host.machine), host.machine.session("alice", TIMED_SUDO) as session:
        session.ask("5")  # whatever the first ones read
        for _ in range(SUDOS // SUDOS_AT_ONCE):
            for profile, turns in took.items():
                with nullcontext() if profile == "with" else host.profile_off():
                    said = session.ask(str(SUDOS_AT_ONCE), timeout_sec=600)
                turns.append([int(usec) for usec in said.split()])
    msec = {profile: statistics.median(chain(*turns)) / 1000 for profile, turns in took.items()}
    differ = [statistics.median(turn) / 1000 for turn in took["without"]]
    tell(
        f"sudo true, {SUDOS} times: median {msec['without']:.1f} ms without the hook, {msec['with']:.1f} ms"
        f" with it; {SUDOS_AT_ONCE} at a time, without it: {min(differ):.1f} to {max(differ):.1f} ms"
    )
    assert all(len(turn) == SUDOS_AT_ONCE for turns in took.values() for turn in turns)
    assert msec["with"] <= max(differ)


def test_su_and_sudo_inside_a_session_ask_nobody(hook_host: HookHost) -> None:
    host = hook_host
    host.make_files("su", 1, read_before=True)
    with sudoer(host.machine), host.nothing_after(), host.patient_hook():
        with host.machine.session("alice", 'while read line; do sh -c "$line" && echo done; done') as session:
            host.mark()
            for command in (
                f"cat {FILES}/su-0",
                "sudo -i true",
                "sudo su - bob -c true",
                "sudo su - root -c true",
                "sudo true",
            ):
                assert session.ask(f"{command} >/dev/null") == "done"
            assert host.said("hook") == 0
            assert host.before(Source.PAM) == []
        wait_until(
            lambda: host.before(Source.PAM) or host.said("hook"),
            timeout_sec=60,
            what="its own end is heard of",
        )


@pytest.mark.load  # the package's own tests purge it too
def test_removing_the_package_leaves_no_trace(machine: Machine) -> None:
    traces = "grep -rl logindguard /etc/pam.d /lib/systemd/system /etc/systemd/system /usr/share/pam-configs"
    try:
        machine.run("dpkg --remove logindguard", timeout_sec=180)
        assert machine.run(traces, check=False).stdout == ""
        assert machine.login("alice", "echo in").stdout == "in\n"
        machine.run("dpkg --purge logindguard", timeout_sec=180)
        assert machine.run(f"{traces} /var/lib/pam /etc", check=False).stdout == ""
        assert machine.run("ls -d /lib/systemd/system/cron-.service.d", check=False).stdout == ""
    finally:
        machine.install_deb(deb())
    assert HOOK in machine.read("/etc/pam.d/common-session")
