"""Every check on readings that it is about, and the readings on trees of files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from logindguard.ctl.doctor.checks import CHECKS, examine
from logindguard.ctl.doctor.conf import pam_session, setting
from logindguard.ctl.doctor.finding import Finding, State, verdict
from logindguard.ctl.doctor.logins import Logins, from_records
from logindguard.ctl.doctor.readings import Readings, read
from logindguard.ctl.roots import Roots
from logindguard.kernel.cgroupfs import Hierarchy
from logindguard.kernel.features import Features

from . import host
from .conftest import Command, program, write
from .fake_service import NOW_USEC, RECORDS, SEC, Running

FEATURES = Features(
    memory_reclaim=True,
    swappiness_word=False,
    partial_walks=False,
    mglru=False,
    recursiveprot=True,
    reparents_lru=False,
    dying_key="nr_dying_descendants",
)
V1 = Hierarchy(1, Path("/sys/fs/cgroup/memory"), frozenset({"memory"}))
V2 = Hierarchy(2, Path("/sys/fs/cgroup"), frozenset({"memory_recursiveprot"}))
PRECISE = {"version": "0.1.0", "mode": "precise", "mode_reason": "a shield", "paused": False}
WELL = Readings(
    release="6.1.0",
    hierarchy=V2,
    features=FEATURES,
    command_line=("quiet",),
    dying=3,
    sessions_have_memcgs=True,
    pressure=True,
    in_container=False,
    pam={"common-session": ("pam_systemd.so", "pam_exec.so quiet /usr/libexec/logindguard-hook"), "sshd": ()},
    pam_profile=True,
    cron=frozenset({"cron"}),
    lingering=(),
    kill_user_processes=False,
    polkit=True,
    journal_storage="auto",
    journal_on_disk=True,
    installed=True,
    service=PRECISE,
    last_record_usec=NOW_USEC - 5 * SEC,
    history=True,
    logins=(Logins("alice", 3, 2),),
    now_usec=NOW_USEC,
)
HEALS = replace(FEATURES, reparents_lru=True)
UNKNOWN = replace(FEATURES, reparents_lru=None)
NOKMEM = ("quiet", "cgroup.memory=nosocket,nokmem")
OFTEN = (Logins("alice", 60, 130), Logins("bob", 55, 120), Logins("carol", 2, 0))

CASES: list[tuple[str, dict[str, object], State | None, str]] = [
    ("self-healing", {}, State.NOTE, "does not heal itself"),
    ("self-healing", {"features": HEALS}, State.OK, "moves page cache to the parent"),
    ("self-healing", {"features": UNKNOWN, "release": "7.2"}, State.NOTE, "cannot be read without root"),
    ("self-healing", {"features": UNKNOWN}, State.NOTE, "does not heal itself"),
    ("dying", {}, State.OK, "3 memcgs are dying now."),
    ("dying", {"dying": 2000}, State.WARN, "2000 memcgs"),
    ("dying", {"dying": None}, None, ""),
    ("service", {}, State.OK, "logindguard 0.1.0 runs."),
    ("service", {"service": None}, State.FAIL, "is not running"),
    ("service", {"service": None, "installed": False}, State.FAIL, "is not installed"),
    ("service", {"service": None, "features": HEALS}, State.NOTE, "is not running"),
    ("service", {"service": None, "in_container": True}, State.NOTE, "container"),
    ("mode", {}, State.OK, "Mode precise: a shield."),
    ("mode", {"service": {**PRECISE, "mode": "shared"}}, State.NOTE, "Mode shared"),
    ("mode", {"service": {**PRECISE, "mode": "observe"}}, State.WARN, "Mode observe"),
    ("mode", {"service": {**PRECISE, "mode": "observe"}, "features": HEALS}, State.OK, "Mode observe"),
    ("mode", {"service": None}, None, ""),
    ("paused", {}, None, ""),
    (
        "paused",
        {"service": {**PRECISE, "paused": True, "pause_reason": "asked for"}},
        State.WARN,
        "asked for",
    ),
    ("last-record", {}, State.OK, "5s ago"),
    ("last-record", {"last_record_usec": None}, State.NOTE, "no record of the last 7 days"),
    ("last-record", {"history": False}, State.NOTE, "cannot be read as this user"),
    ("last-record", {"service": None}, None, ""),
    ("cgroup", {}, State.OK, "cgroup v2 with memory.reclaim."),
    ("cgroup", {"hierarchy": V1}, State.WARN, "cgroup v1"),
    ("cgroup", {"features": replace(FEATURES, memory_reclaim=False)}, State.WARN, "no memory.reclaim"),
    ("cgroup", {"hierarchy": None}, State.NOTE, "No cgroup hierarchy"),
    ("mount", {}, State.OK, "with memory_recursiveprot"),
    ("mount", {"hierarchy": replace(V2, options=frozenset())}, State.NOTE, "without memory_recursiveprot"),
    ("mount", {"hierarchy": V1}, None, ""),
    ("kernel", {}, State.OK, "does not let slab objects pin"),
    ("kernel", {"release": "5.8.0"}, State.WARN, "older than 5.9"),
    ("nokmem", {}, State.OK, "is accounted, and does not pin"),
    ("nokmem", {"command_line": NOKMEM}, State.NOTE, "gains nothing here"),
    ("nokmem", {"command_line": NOKMEM, "release": "4.19.0"}, State.OK, "(cgroup.memory=nokmem)."),
    ("nokmem", {"release": "4.19.0"}, State.WARN, "pins dying memcgs"),
    ("accounting", {}, State.OK, "of their own"),
    ("accounting", {"sessions_have_memcgs": False}, State.NOTE, "memory accounting is off"),
    ("accounting", {"sessions_have_memcgs": None}, None, ""),
    ("pressure", {}, State.OK, "(PSI)"),
    ("pressure", {"pressure": False}, State.NOTE, "does not measure"),
    ("pam-systemd", {}, State.OK, "/etc/pam.d/common-session"),
    ("pam-systemd", {"pam": {"sshd": ("pam_systemd.so",)}}, State.OK, "/etc/pam.d/sshd"),
    ("pam-systemd", {"pam": {}}, State.OK, "No login goes through"),
    ("pam-hook", {}, State.OK, "is part of common-session"),
    ("pam-hook", {"pam": {}}, State.WARN, "installed but not part"),
    ("pam-hook", {"pam": {}, "pam_profile": False}, State.NOTE, "is not installed"),
    ("cron", {}, State.OK, "in cron.service itself"),
    ("cron", {"pam": {"cron": ("pam_systemd.so",)}}, State.NOTE, "session of its own"),
    (
        "cron",
        {"pam": {"cron": ("pam_exec.so /x/logindguard-hook", "pam_systemd.so")}},
        State.OK,
        "of its own",
    ),
    ("cron", {"cron": frozenset({"systemd-cron"})}, State.OK, "services of systemd-cron"),
    ("cron", {"cron": frozenset()}, State.OK, "No cron is installed."),
    ("linger", {}, State.OK, "No user lingers."),
    ("linger", {"lingering": ("alice", "bob")}, State.OK, "2 users linger: alice, bob."),
    ("logins", {}, State.OK, "logged in 50 times"),
    ("logins", {"logins": ()}, None, ""),
    ("logins", {"logins": OFTEN}, State.NOTE, "115 logins of alice, bob in 7 days."),
    ("logins", {"logins": OFTEN, "lingering": ("alice", "bob")}, State.OK, "No user"),
    ("kill-user", {}, State.OK, "KillUserProcesses=no"),
    ("kill-user", {"kill_user_processes": True}, State.OK, "KillUserProcesses=yes"),
    ("polkit", {}, State.OK, "polkit is installed."),
    ("polkit", {"polkit": False}, State.NOTE, "polkit is not installed."),
    ("journal", {}, State.OK, "kept on disk"),
    ("journal", {"journal_on_disk": False}, State.NOTE, "lost with each reboot"),
    ("journal", {"journal_storage": "persistent", "journal_on_disk": False}, State.OK, "kept on disk"),
    ("journal", {"journal_storage": "volatile"}, State.NOTE, "lost with each reboot"),
    ("journal", {"journal_storage": "none"}, State.WARN, "keeps nothing"),
]


def found(readings: Readings, check: str) -> Finding | None:
    return next((finding for finding in examine(readings) if finding.check == check), None)


@pytest.mark.parametrize(("check", "changed", "state", "words"), CASES)
def test_check(check: str, changed: dict[str, object], state: State | None, words: str) -> None:
    finding = found(replace(WELL, **changed), check)  # type: ignore[arg-type]  # each case names real fields
    if state is None:
        assert finding is None
        return
    assert finding is not None
    assert finding.state is state
    assert words in finding.finding
    for sentence in (finding.finding, finding.why):
        assert sentence.endswith(".")
        assert (
            sentence[0].isupper()
            or sentence[0].isdigit()
            or sentence.startswith(("cgroup", "logindguard", "polkit", "/"))
        )
    if state in (State.WARN, State.FAIL) and check != "mode":
        assert finding.command


def test_every_check_is_in_the_table() -> None:
    assert len({case[0] for case in CASES}) == len(CHECKS)


def test_lingering_is_estimated() -> None:
    finding = found(replace(WELL, logins=OFTEN), "logins")
    assert finding is not None
    assert "250 of 365 memory cgroups, by estimate" in finding.why
    assert finding.command == "loginctl enable-linger alice bob"
    unknown = found(replace(WELL, logins=(Logins("alice", 60, 0),)), "logins")
    assert unknown is not None
    assert "up to 180 of 240 memory cgroups" in unknown.why


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({}, "This host leaks memory cgroups, and logindguard covers it."),
        ({"service": None}, "This host leaks memory cgroups, and nothing covers it."),
        ({"features": HEALS}, "This host does not leak memory cgroups for long: its kernel heals itself."),
        ({"features": UNKNOWN, "release": "7.2"}, "Whether this host leaks memory cgroups cannot be told;"),
    ],
)
def test_verdict(changed: dict[str, object], sentence: str) -> None:
    readings = replace(WELL, **changed)  # type: ignore[arg-type]
    answer = verdict(readings.leaks, readings.service is not None, examine(readings))
    assert answer.startswith(sentence)


class TestReadings:
    def test_debian(self, roots: Roots) -> None:
        host.debian(roots)
        readings = read(roots)
        assert (readings.version, readings.leaks, readings.dying) == ((6, 1), True, 5)
        assert readings.sessions_have_memcgs is True
        assert readings.cron == {"cron"}
        assert "pam_systemd.so" in readings.pam["sshd"]
        assert "pam_systemd.so" not in readings.pam["cron"]
        assert readings.polkit
        assert readings.installed

    def test_an_empty_host(self, roots: Roots) -> None:
        write(roots.proc / "self/mountinfo")
        readings = read(roots)
        assert readings.hierarchy is None
        assert examine(readings)

    def test_a_kernel_that_heals(self, roots: Roots) -> None:
        host.debian(roots, release="7.1.2", heals=True)
        assert read(roots).leaks is False

    def test_accounting(self, roots: Roots) -> None:
        tree = host.debian(roots)
        (tree.directory("/user.slice") / "cgroup.subtree_control").write_text("pids\n")
        assert read(roots).sessions_have_memcgs is False

    def test_settings_of_systemd(self, roots: Roots) -> None:
        assert setting(roots, "logind.conf", "KillUserProcesses") is None
        write(roots.usr / "lib/systemd/logind.conf", "[Login]\nKillUserProcesses=no\n")
        write(roots.etc / "systemd/logind.conf", "[Login]\n#KillUserProcesses=no\n")
        assert setting(roots, "logind.conf", "KillUserProcesses") is None  # /etc hides /usr/lib
        write(roots.usr / "lib/systemd/logind.conf.d/50-a.conf", "KillUserProcesses=yes\n")
        assert read(roots_with_mounts(roots)).kill_user_processes is True
        write(roots.etc / "systemd/logind.conf.d/50-a.conf", "[Login]\n")  # hides the other
        assert setting(roots, "logind.conf", "KillUserProcesses") is None
        write(roots.etc / "systemd/logind.conf.d/60-b.conf", "KillUserProcesses = off\n")
        write(roots.etc / "systemd/logind.conf.d/90-c.txt", "KillUserProcesses=yes\n")
        assert setting(roots, "logind.conf", "KillUserProcesses") == "off"

    def test_pam_stacks(self, roots: Roots) -> None:
        write(
            roots.etc / "pam.d/a",
            "session [success=ok \\\n default=bad] pam_x.so arg # no\n-session optional pam_y.so\n",
        )
        write(roots.etc / "pam.d/b", "@include a\nauth required pam_z.so\nsession substack c\n")
        write(roots.etc / "pam.d/c", "session include b\nsession required pam_c.so\n")
        assert pam_session(roots, "a") == ("pam_x.so arg", "pam_y.so")
        lines = pam_session(roots, "b")  # goes round in circles, and ends
        assert lines is not None
        assert set(lines) == {"pam_x.so arg", "pam_y.so", "pam_c.so"}
        assert pam_session(roots, "d") is None

    def test_logins_of_records(self) -> None:
        assert from_records(RECORDS) == (Logins("alice", 1, 0),)


def roots_with_mounts(roots: Roots) -> Roots:
    write(roots.proc / "self/mountinfo")
    return roots


class TestCommand:
    def test_the_status_answers(self, command: Command, roots: Roots) -> None:
        host.debian(roots)
        assert command("doctor", "-q").status == 1
        write(roots.sys / "kernel/btf/vmlinux", "\0lru_reparent_memcg\0")
        assert command("doctor", "-q").status == 0

    def test_logins_from_logind_where_no_service_runs(self, command: Command, roots: Roots) -> None:
        host.debian(roots)
        program(command.directory, "journalctl", "for i in $(seq 60); do echo dave; done; echo erin")
        checks = json.loads(command("doctor", "-j").out)["checks"]
        logins = next(check for check in checks if check["check"] == "logins")
        assert logins["finding"] == "60 logins of dave in 7 days."
        assert logins["command"] == "loginctl enable-linger dave"

    def test_records_that_are_not_for_us(self, command: Command, roots: Roots, running: Running) -> None:
        host.debian(roots)
        running.service.errors["ListReclaims"] = "org.freedesktop.DBus.Error.AccessDenied"
        ran = command("doctor")
        assert ran.status == 0
        assert "The records cannot be read as this user." in ran.out
