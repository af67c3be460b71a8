"""The hook before the removal, with real logins, jobs and stop jobs.

LOAD=full (make test-load) makes the counts those that README.md tells figures of.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from logindguard.model import ReclaimRecord, Source, Way
from logindguard.record.entry import from_fields
from tests.conftest import Tell
from tests.lab import end_of_scope
from tests.vm.conftest import on
from tests.vm.machine import Machine, wait_until
from tests.vm.package import deb
from tests.vm.system import BOOKWORM, BOOKWORM_V1, TRIXIE

pytestmark = on(BOOKWORM, TRIXIE, BOOKWORM_V1)

FULL = os.environ.get("LOAD") == "full"
LOGINS = 50 if FULL else 12
SUDOS = 1000 if FULL else 60
LOGOUTS = 10 if FULL else 3
UNIT = "logindguard.service"
HOOK = "/usr/libexec/logindguard-hook"
DROPIN = "/etc/logindguard/config.d/90-pam.yaml"
FILES = "/var/tmp/pam"
READ_BYTES = 4 << 20
ONLY_BEFORE = "teardown: {after: no}\nsweep: {enabled: no}\nlog_level: debug\n"


@dataclass
class Host:
    """The machine, and the time since which records count."""

    machine: Machine
    since: str = ""

    def mark(self) -> None:
        self.since = self.machine.run("date +@%s.%N").stdout.strip()

    def records(self) -> list[ReclaimRecord]:
        entries = self.machine.journal_records("--unit", UNIT, "--since", self.since)
        return [from_fields(entry) for entry in entries if "LOGINDGUARD_OUTCOME" in entry]

    def before(self, source: Source) -> list[ReclaimRecord]:
        return [
            each for each in self.records() if each.way is Way.BEFORE and each.teardowns[0].source is source
        ]

    def said(self, words: str) -> int:
        return self.machine.journal("--unit", UNIT, "--since", self.since).count(words)

    @contextmanager
    def settings(self, text: str) -> Iterator[None]:
        self.machine.run(f"mkdir -p $(dirname {DROPIN}); cat >{DROPIN}", data=text.encode())
        self._restart()
        try:
            yield
        finally:
            self.machine.run(f"rm -f {DROPIN}")
            self._restart()

    def _restart(self) -> None:
        self.machine.run(f"systemctl restart {UNIT}")
        self.mark()
        self.wait_served()

    def wait_served(self) -> None:
        """The hook does not start the guard: it has to have its name."""
        wait_until(
            lambda: self.machine.run("busctl status org.logindguard1.Hook", check=False).status == 0,
            timeout_sec=60,
            what="the guard is on the bus",
        )

    @contextmanager
    def profile_off(self) -> Iterator[None]:
        self.machine.run("pam-auth-update --disable logindguard")
        try:
            yield
        finally:
            self.machine.run("pam-auth-update --enable logindguard")

    @contextmanager
    def patient_hook(self) -> Iterator[None]:
        """2 s instead of 0.2: an emulated machine is ten times as slow as the real ones that is meant for."""
        self.machine.run(f"cp -p {HOOK} /var/tmp/hook; sed -i 's/KILL 0.2/KILL 2/' {HOOK}")
        try:
            yield
        finally:
            self.machine.run(f"cp -p /var/tmp/hook {HOOK}")

    def make_files(self, prefix: str, count: int) -> None:
        """Read once already, so that the next reader changes no access time; none is in memory."""
        self.machine.run(
            f"mkdir -p {FILES} && cd {FILES} && for n in $(seq 0 {count - 1}); do"
            f" head -c {READ_BYTES} /dev/zero >{prefix}-$n; done; sync; cat {prefix}-* >/dev/null; sync;"
            f" for file in {prefix}-*; do dd status=none iflag=nocache count=0 if=$file; done",
            timeout_sec=180,
        )

    def dying(self) -> int:
        return self.machine.dying("/user.slice" if self.machine.system.cgroup_version == 2 else "/")

    def pins(self) -> dict[str, int]:
        """What dying memcgs hold below the user's slice, in KiB, with no session left."""
        mine = "/user.slice/user-1000.slice"
        whole, live = (self.machine.memory_stat(path) for path in (mine, f"{mine}/user@1000.service"))
        dirty = "file_dirty" if "file_dirty" in whole else "dirty"
        writeback = "file_writeback" if "file_writeback" in whole else "writeback"
        keys = {"page cache": "file", "dirty": dirty, "under writeback": writeback, "mapped": "file_mapped"}
        return {name: max(0, whole[key] - live[key]) >> 10 for name, key in keys.items()}


@pytest.fixture
def host(machine: Machine) -> Iterator[Host]:
    machine.run("loginctl enable-linger alice")  # so that her slice stays, and what hangs below it
    host = Host(machine)
    machine.login("alice", "true")  # whatever a first login reads and writes
    host.mark()
    yield host
    machine.run(f"rm -rf {FILES}; loginctl disable-linger alice")


def test_the_profile(machine: Machine) -> None:
    stack = machine.read("/etc/pam.d/common-session").splitlines()
    [ours] = [n for n, line in enumerate(stack) if HOOK in line]
    [theirs] = [n for n, line in enumerate(stack) if "pam_systemd.so" in line]
    assert ours < theirs
    assert HOOK not in machine.read("/etc/pam.d/common-session-noninteractive")


@pytest.mark.timeout(1800)
def test_logins_that_only_read_leave_nothing(host: Host, tell: Tell) -> None:
    """With the hook alone: no way after, no sweep."""
    host.make_files("read", LOGINS)
    with host.settings(ONLY_BEFORE), host.patient_hook():
        host.machine.login("alice", "true")
        host.mark()
        before = host.dying()
        for number in range(LOGINS):
            host.machine.login("alice", f"cat {FILES}/read-{number} >/dev/null")
        left = wait_settled(host) - before
        served = host.before(Source.PAM)
    walls = [record.wall_usec / 1000 for record in served]
    tell(f"{LOGINS} logins that only read: {left} dying more, what is left holds {host.pins()} KiB")
    tell(
        f"{len(served)} served by the hook, {sum(r.freed_bytes for r in served) >> 20} MiB in "
        f"{statistics.median(walls):.0f} ms each (median), longest write "
        f"{max(r.longest_write_usec for r in served) / 1000:.0f} ms"
    )
    assert len(served) >= LOGINS * 8 // 10
    assert left <= LOGINS * 2 // 10
    assert {record.teardowns[0].service for record in served} <= {"sshd", None}


def wait_settled(host: Host) -> int:
    """Dying memcgs once no session of hers is left and their number stays."""
    wait_until(
        lambda: (
            "session"
            not in host.machine.run("ls /sys/fs/cgroup/user.slice/user-1000.slice", check=False).stdout
        ),
        timeout_sec=30,
        what="no session is left",
    )
    last = -1
    while (now := host.dying()) != last:
        last = now
        time.sleep(1)
    return now


@pytest.mark.timeout(1800)
def test_what_was_written_is_left_and_named(host: Host, tell: Tell) -> None:
    host.make_files("write", LOGINS)
    write = "head -c 65536 /dev/urandom >w-{n}"
    with host.settings(ONLY_BEFORE), host.patient_hook():
        before = host.dying()
        for n in range(LOGINS):
            host.machine.login("alice", f"cat {FILES}/write-{n} >/dev/null; {write.format(n=n)}")
        left = wait_settled(host) - before
        served = host.before(Source.PAM)
        tell(f"{LOGINS} logins that read and write 64 KiB: {left} dying more, holding {host.pins()} KiB")
        host.machine.run("sync")
        tell(f"after sync: {wait_settled(host) - before} dying more, holding {host.pins()} KiB")
    reasons = [record.reason for record in served]
    tell(f"reasons of the hook: { {reason: reasons.count(reason) for reason in set(reasons)} }")
    assert len(served) >= LOGINS * 8 // 10
    assert left <= reasons.count("the rest waits for writeback") + LOGINS * 2 // 10


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


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_holds_up_the_end_of_a_session(host: Host, fault: str, tell: Tell) -> None:
    """Each beside the same fault without the profile."""
    begin, end = FAULTS[fault]
    host.machine.put(Path(end_of_scope.__file__), "/var/tmp/end_of_scope.py")
    times = LOGOUTS if not fault.startswith("bus") else 1
    closing: dict[str, float] = {}
    removal: dict[str, float] = {}
    for profile in ("without", "with"):
        with host.profile_off() if profile == "without" else nothing():
            took = [end_of_a_session(host, begin, end) for _ in range(times)]
        closing[profile] = statistics.median(inside for inside, _ in took)
        removal[profile] = statistics.median(after for _, after in took)
    tell(
        f"close_session took {closing['without']:.0f} ms without the hook, {closing['with']:.0f} ms with it;"
        f" from then to the rmdir {removal['without']:.0f} and {removal['with']:.0f} ms"
    )
    host.wait_served()
    assert host.machine.login("alice", "echo in").stdout == "in\n"
    assert closing["with"] - closing["without"] < 300 + 2_000  # generous: the figure is told


@contextmanager
def nothing() -> Iterator[None]:
    yield


def end_of_a_session(host: Host, begin: str, end: str) -> tuple[float, float]:
    """In ms: inside close_session, and from the last process to the removal."""
    session = host.machine.session("alice", "cat")
    directory = f"{host.machine.memory_root}{session.cgroup}"
    host.machine.run(f"rm -f /run/watching; {begin}")
    with ThreadPoolExecutor(1) as thread:
        watching = thread.submit(
            host.machine.run, f"python3 /var/tmp/end_of_scope.py {directory} /run/watching", timeout_sec=200
        )
        wait_until(
            lambda: host.machine.run("test -e /run/watching", check=False).status == 0,
            timeout_sec=30,
            what="the session is watched",
        )
        try:
            session.close(timeout_sec=120)
            inside, after = watching.result().stdout.split()
        finally:
            host.machine.run(end)
    return float(inside), float(after)


def test_sudo_is_not_slower(host: Host, tell: Tell) -> None:
    """Its stack has no hook; that of `sudo -i` and `su` leaves before any contact with the bus."""
    host.machine.run("echo 'alice ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/alice")
    each = f"for n in $(seq {SUDOS}); do sudo true; done"
    clock = f"a=$(date +%s%N); {each}; b=$(date +%s%N); echo $(( (b - a) / 1000 ))"
    took = {}
    for profile in ("without", "with", "without again"):
        with nothing() if profile == "with" else host.profile_off():
            took[profile] = int(host.machine.login("alice", clock, timeout_sec=600).stdout) / SUDOS / 1000
    tell(f"sudo true, {SUDOS} times: {', '.join(f'{ms:.1f} ms {name}' for name, ms in took.items())}")
    baseline = max(took["without"], took["without again"])
    assert took["with"] < baseline * 1.5


def test_su_and_sudo_inside_a_session_ask_nobody(host: Host) -> None:
    host.machine.run("echo 'alice ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/alice")
    with host.settings(ONLY_BEFORE):
        with host.machine.session("alice", 'while read line; do sh -c "$line" && echo done; done') as session:
            host.mark()
            for command in ("sudo -i true", "sudo su - bob -c true", "sudo su - root -c true", "sudo true"):
                assert session.ask(f"{command} >/dev/null") == "done"
            assert host.said("hook") == 0
            assert host.records() == []
        wait_until(
            lambda: host.before(Source.PAM) or host.said("hook"),
            timeout_sec=30,
            what="its own end is heard of",
        )


def test_terminate_session_with_a_process_that_resists(host: Host, tell: Tell) -> None:
    """Reclaim begins with the stop job, and goes on until the cgroup is gone."""
    host.make_files("resist", 2)
    dropin = "/run/systemd/system/session-.scope.d"
    host.machine.run(
        f"mkdir -p {dropin}; printf '[Scope]\\nTimeoutStopSec=6\\n' >{dropin}/t.conf; systemctl daemon-reload"
    )
    try:
        with host.settings(ONLY_BEFORE):
            stubborn = (
                f"trap '' TERM HUP PIPE; cat {FILES}/resist-0 >/dev/null; echo up;"
                f" sleep 3; cat {FILES}/resist-1 >/dev/null; while :; do sleep 1; done"
            )
            session = host.machine.session("alice", f'exec setsid sh -c "{stubborn}"')
            assert session.readline() == "up"
            number = session.cgroup.rpartition("session-")[2].removesuffix(".scope")
            host.mark()
            host.machine.run(f"loginctl terminate-session {number}")
            gone = f"test ! -e {host.machine.memory_root}{session.cgroup}"
            wait_until(
                lambda: host.machine.run(gone, check=False).status == 0, timeout_sec=60, what="it is gone"
            )
            [record] = wait_until(lambda: host.before(Source.SYSTEMD1), timeout_sec=30, what="a record")
            session.close()
    finally:
        host.machine.run(f"rm -r {dropin}; systemctl daemon-reload")
    tell(f"{record.freed_bytes >> 20} MiB in {record.writes} writes until it was gone: {record.reason}")
    assert record.freed_bytes >= READ_BYTES


@pytest.mark.timeout(300)
def test_cron_with_sessions(host: Host) -> None:
    host.make_files("cron", 1)
    lines = f"session optional pam_exec.so type=close_session quiet {HOOK}\nsession optional pam_systemd.so\n"
    host.machine.run("cp /etc/pam.d/cron /var/tmp/pam-cron; cat >>/etc/pam.d/cron", data=lines.encode())
    job = f"* * * * * alice cat {FILES}/cron-0 >/dev/null\n"
    try:
        with host.settings(ONLY_BEFORE), host.patient_hook():
            host.machine.run("cat >/etc/cron.d/logindguard-test", data=job.encode())
            [record, *_] = wait_until(lambda: host.before(Source.PAM), timeout_sec=150, what="a job's record")
    finally:
        host.machine.run("rm /etc/cron.d/logindguard-test; cp /var/tmp/pam-cron /etc/pam.d/cron")
    assert record.teardowns[0].unit.startswith("session-")
    assert record.freed_bytes >= READ_BYTES // 2


@pytest.mark.timeout(300)
def test_systemd_cron(host: Host, tell: Tell) -> None:
    """It takes the place of cron; nothing but the package's drop-in is needed."""
    host.make_files("job", 1)
    host.machine.run(
        "dpkg --remove --force-depends cron; dpkg --install /var/tmp/systemd-cron_*.deb", timeout_sec=180
    )
    job = f"0 0 1 1 * alice cat {FILES}/job-0 >/dev/null\n"
    host.machine.run("cat >/etc/cron.d/logindguard-test; systemctl daemon-reload; sleep 2", data=job.encode())
    listed = "systemctl list-unit-files 'cron-logindguard*' --no-legend | awk '/service/ {print $1}'"
    [unit] = host.machine.run(listed).stdout.split()
    with host.settings(ONLY_BEFORE), host.patient_hook():
        host.machine.run(f"systemctl start {unit}")
        [record] = wait_until(lambda: host.before(Source.STOP_POST), timeout_sec=30, what="the job's record")
    host.machine.run(
        "rm /etc/cron.d/logindguard-test; dpkg --remove systemd-cron; dpkg --install /var/tmp/cron_*.deb",
        timeout_sec=180,
    )
    tell(f"a job of systemd-cron, {unit}: {record.freed_bytes >> 20} MiB before its removal")
    assert record.teardowns[0].unit == unit
    assert record.freed_bytes >= READ_BYTES // 2


def test_removing_the_package_leaves_no_trace_in_pam(machine: Machine) -> None:
    machine.run("dpkg --remove logindguard", timeout_sec=180)
    assert HOOK not in machine.run("cat /etc/pam.d/common-*").stdout
    assert machine.login("alice", "echo in").stdout == "in\n"
    machine.install_deb(deb())
    assert HOOK in machine.read("/etc/pam.d/common-session")
