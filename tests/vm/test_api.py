"""The Manager on a real system bus, with the real polkit and journal: as people and tools call it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.vm.conftest import on
from tests.vm.machine import Machine, wait_until
from tests.vm.ssh import Result
from tests.vm.system import BOOKWORM

pytestmark = on(BOOKWORM)

UNIT = "logindguard.service"
OBJECT = "org.logindguard1 /org/logindguard1"
MANAGER = "org.logindguard1.Manager"
RULES = "/etc/polkit-1/rules.d/50-test.rules"
ALLOW = """polkit.addRule(function(action, subject) {
    if (action.id.indexOf("org.logindguard1.") == 0 && subject.user == "alice") return polkit.Result.YES;
});
"""
README = Path(__file__).parents[2] / "README.md"


def busctl(machine: Machine, call: str, user: str = "root") -> Result:
    """busctl asks for a password unless told not to, and there is nobody to type it."""
    return machine.run(
        f"busctl --json=short --allow-interactive-authorization=no call {OBJECT} {MANAGER} {call}",
        user=user,
        check=False,
    )


def answer(machine: Machine, call: str, user: str = "root") -> Any:
    done = busctl(machine, call, user)
    assert done.status == 0, done.stderr
    return _plain(json.loads(done.stdout)["data"]) if done.stdout.strip() else None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"type", "data"}:
            return _plain(value["data"])
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def get(machine: Machine, name: str, user: str = "root") -> str:
    out = machine.run(f"busctl get-property {OBJECT} {MANAGER} {name}", user=user).stdout
    return out.split(" ", 1)[1].strip().strip('"')


@pytest.fixture(autouse=True)
def _as_installed(machine: Machine) -> Iterator[None]:
    machine.run(f"systemctl reset-failed {UNIT}; systemctl start {UNIT}")
    wait_until(lambda: busctl(machine, "ListJobs").status == 0, timeout_sec=60, what="it is on the bus")
    yield
    machine.run(f"rm -f {RULES}; systemctl unmask --runtime polkit; systemctl start polkit", check=False)
    busctl(machine, "Resume")


@pytest.fixture
def allowed(machine: Machine) -> None:
    """alice may do everything, from as soon as polkit has seen the rule."""
    machine.run(f"mkdir -p {Path(RULES).parent}; cat >{RULES}", data=ALLOW.encode())
    wait_until(
        lambda: busctl(machine, "Resume", "alice").status == 0, timeout_sec=30, what="polkit has the rule"
    )


def test_busctl_shows_every_member(machine: Machine) -> None:
    shown = machine.run(f"busctl introspect {OBJECT} {MANAGER}", user="alice").stdout
    members = {line.split()[0] for line in shown.splitlines()[1:]}
    shipped = machine.read(f"/usr/share/dbus-1/interfaces/{MANAGER}.xml")
    for name in re.findall(r'<(?:method|property|signal) name="(\w+)"', shipped):
        assert f".{name}" in members
    assert get(machine, "Mode", "alice") == "precise"
    assert get(machine, "Backend", "alice") == "v2"
    assert "/etc/logindguard/config.yaml" in get(machine, "ConfigFiles", "alice")


def test_gdbus_reads_it(machine: Machine) -> None:
    base = "gdbus call --system --dest org.logindguard1 --object-path /org/logindguard1 --method"
    told = machine.run(f"{base} {MANAGER}.GetStatistics", user="alice").stdout
    assert "'teardowns_total': <uint64 " in told
    refused = machine.run(f"{base} {MANAGER}.Sweep '{{}}'", user="alice", check=False)
    assert "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired" in refused.stderr
    plan = machine.run(f"{base} {MANAGER}.Sweep \"{{'dry_run': <true>}}\"").stdout
    assert plan.startswith("(uint32 0, ")


def test_polkit_knows_the_actions(machine: Machine) -> None:
    actions = machine.run("pkaction").stdout
    for name in ("sweep", "reclaim", "reload", "read-details"):
        assert f"org.logindguard1.{name}" in actions


def test_an_ordinary_user_may_change_nothing(machine: Machine) -> None:
    for call in (
        "Sweep 'a{sv}' 0",
        "Pause t 0",
        "Resume",
        "Reload",
        "Restore",
        "ReclaimUnit 'sa{sv}' cron.service 0",
    ):
        refused = busctl(machine, call, "alice")
        assert refused.status != 0
        assert "interactive authorization" in refused.stderr
    assert get(machine, "Paused") == "false"


@pytest.mark.timeout(360)
@pytest.mark.usefixtures("allowed")
def test_who_is_allowed_may(machine: Machine) -> None:
    job, plan = answer(machine, "Sweep 'a{sv}' 0", "alice")
    assert (job > 0, plan) == (True, [])
    wait_until(
        lambda: [row["state"] for row in answer(machine, "ListJobs")[0] if row["id"] == job] == ["done"],
        timeout_sec=240,  # it rests for 50 times its CPU time, which is long under emulation
        what="the job is done",
    )
    answer(machine, "Pause t 0", "alice")
    assert get(machine, "PauseReason") == "paused until it is resumed"
    answer(machine, "Resume", "alice")
    assert answer(machine, "Restore", "alice") == [0]
    answer(machine, "Reload", "alice")


def test_a_user_sees_its_own_history(machine: Machine) -> None:
    begun_usec = int(machine.run("date +%s%6N").stdout)
    for user in ("alice", "bob"):
        machine.login(user, "head -c 1M /dev/urandom >api; cat api >/dev/null")

    def users(caller: str) -> set[int]:
        [rows] = answer(machine, f"ListReclaims ttu {begun_usec} 0 0", caller)
        return {each["uid"] for row in rows for each in row["teardowns"] if "uid" in each}

    alice, bob = (int(machine.run(f"id -u {user}").stdout) for user in ("alice", "bob"))
    wait_until(lambda: {alice, bob} <= users("root"), timeout_sec=60, what="both are in the history")
    assert bob not in users("alice")
    [rows] = answer(machine, f"ListReclaims ttu {begun_usec} 0 0")
    entry = next(row for row in rows if {each.get("uid") for each in row["teardowns"]} == {bob})
    assert answer(machine, f"GetReclaim s {entry['id']}")[0]["id"] == entry["id"]
    assert busctl(machine, f"GetReclaim s {entry['id']}", "alice").status != 0


def test_a_session_that_lives_and_one_that_never_was(machine: Machine) -> None:
    session = machine.session("alice", "cat")
    number = re.search(r"session-(\w+)\.scope", session.cgroup)
    assert number is not None
    assert answer(machine, f"ReclaimSession 'sa{{sv}}' {number[1]} 0")[0] > 0
    assert answer(machine, f"ReclaimUnit 'sa{{sv}}' {UNIT} 1 dry_run b true")[0] == 0
    session.close()
    assert "No cgroup of session-nosuch.scope" in busctl(machine, "ReclaimSession 'sa{sv}' nosuch 0").stderr


def test_a_pause_outlives_a_restart_and_a_kill(machine: Machine) -> None:
    answer(machine, "Pause t 3600000000")
    for end in ("systemctl restart", "systemctl kill -s KILL"):
        machine.run(f"{end} {UNIT}")
        wait_until(
            lambda: busctl(machine, "ListJobs").status == 0, timeout_sec=90, what="it is back on the bus"
        )
        assert get(machine, "Paused") == "true"
    assert "Nothing is reclaimed: paused by root until" in busctl(machine, "Sweep 'a{sv}' 0").stderr
    answer(machine, "Resume")
    assert get(machine, "Paused") == "false"


@pytest.mark.usefixtures("allowed")
def test_polkit_that_hangs_is_a_no_and_holds_nobody_up(machine: Machine) -> None:
    machine.run("systemctl kill -s STOP polkit")
    try:
        begun = time.monotonic()
        answer(machine, "Pause t 0")  # root is not asked about
        answer(machine, "Resume")
        refused = busctl(machine, "Pause t 0", "alice")
        assert "Access denied" in refused.stderr
        assert time.monotonic() - begun < 60
    finally:
        machine.run("systemctl kill -s CONT polkit")


@pytest.mark.usefixtures("allowed")
def test_without_polkit_only_root_may(machine: Machine) -> None:
    machine.run("systemctl mask --runtime polkit; systemctl stop polkit")
    assert "Access denied" in busctl(machine, "Pause t 0", "alice").stderr
    answer(machine, "Pause t 0")
    answer(machine, "Resume")


def test_calling_it_starts_it(machine: Machine) -> None:
    machine.run(f"systemctl stop {UNIT}")
    assert answer(machine, "GetStatistics", "alice")[0]["paused"] is False
    wait_until(  # it answers before systemd has made its thread idle (ExecStartPost=)
        lambda: machine.run(f"systemctl is-active {UNIT}", check=False).stdout.strip() == "active",
        timeout_sec=60,
        what="it is active",
    )


def test_the_readmes_calls(machine: Machine) -> None:
    lines = re.findall(r"^    ((?:busctl|gdbus) .*)$", README.read_text(), re.MULTILINE)
    said = [machine.run(line).stdout for line in lines]
    assert ".ListReclaims" in said[0]
    assert get(machine, "Paused") == "true"
    assert "'teardowns_total': <uint64 " in said[2]
    for line in (lines[0], lines[2]):  # which only look
        machine.run(line, user="alice")


def test_the_readmes_client(machine: Machine) -> None:
    [program] = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    said = machine.run("/usr/bin/python3 -W ignore -", data=program.encode()).stdout
    assert re.match(r"mode precise dying \d+\n", said)
    assert said.endswith("sweep done\n")
