"""logindguardctl on a real Debian 12: as root, and as somebody whom polkit allows nothing.

Each call starts a Python, which takes seconds under emulation: as many run at once as there are CPUs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from logindguard.ctl.exits import Exit
from tests.vm.conftest import on
from tests.vm.machine import Machine, wait_until
from tests.vm.system import BOOKWORM

pytestmark = on(BOOKWORM)

LOGINS = 3
CPUS = 2
DROPIN = "/etc/logindguard/config.d/90-test.yaml"
SETTINGS = b"pressure: {pause_percent: 100, resume_percent: 99}\n"  # no sweep waits for what runs beside it
RESUME = "org.logindguard1 /org/logindguard1 org.logindguard1.Manager Resume"


class Command:
    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def __call__(self, line: str, user: str = "root", *, status: int = Exit.OK) -> str:
        """What it prints; where it fails, its one sentence."""
        done = self._machine.run(f"logindguardctl {line}", user=user, check=False)
        print(f"$ logindguardctl {line}    # {user}, exit status {done.status}\n{done.stdout}{done.stderr}")
        assert done.status == status, (done.stdout, done.stderr)
        if status == Exit.OK:
            return done.stdout
        assert done.stdout == ""
        return done.stderr

    def json(self, line: str, user: str = "root") -> Any:
        return json.loads(self(f"{line} --json=short --quiet", user))

    def each(self, *lines: str, user: str = "root", status: int = Exit.OK) -> list[str]:
        with ThreadPoolExecutor(CPUS) as pool:
            return list(pool.map(lambda line: self(line, user, status=status), lines))


@pytest.fixture(scope="module")
def command(machine: Machine) -> Iterator[Command]:
    machine.run(
        f"systemctl reset-failed logindguard; mkdir -p $(dirname {DROPIN}) && cat >{DROPIN}"
        " && systemctl reload-or-restart logindguard",
        data=SETTINGS,
    )
    on_the_bus(machine)
    yield Command(machine)
    machine.run(f"rm {DROPIN}; systemctl reload logindguard; busctl call {RESUME}")


def on_the_bus(machine: Machine) -> None:
    wait_until(
        lambda: machine.run("busctl status org.logindguard1", check=False).status == 0,
        timeout_sec=90,
        what="it is on the bus",
    )


def test_a_pause_and_what_is_left_meanwhile(machine: Machine, command: Command) -> None:
    """From a pause to the end of what was left, as an administrator sees it."""
    assert command("pause --for=1h") == "Paused for 1h.\n"
    for number in range(LOGINS):
        machine.login("alice", f"head -c 1M /dev/urandom >ctl-{number}; sync ctl-{number}")

    status, listed, top, plan, well = command.each(
        *("status -n 30", "list", "top -b -n 1", "sweep --dry-run", "check --threshold=100000")
    )
    assert re.match(r"● logindguard .*\n +Mode: precise \(", status)
    assert re.search(r"\n +Service: paused until 2\d\d\d-", status)
    assert "Nothing is reclaimed: paused by root until" in status  # the journal's lines
    assert re.search(r"left session \w+ \(alice, sshd\) alone; paused until", status)
    assert re.search(r"\nuser\.slice(/\S+)? +\S+ +[1-9]\d* +\d", listed)
    assert re.search(r"\nuser\.slice(/\S+)? +[1-9]\d* ", top)
    assert re.search(r"\nuser\.slice\S* +memory\.reclaim +\d+ +reclaim\n", plan)
    assert {"memory.min"} == set(re.findall(r" (\S+) +\S+ +(?:shield|restore)\n", plan))
    assert well.endswith("not above the threshold of 100000.\n")
    assert command("sweep --wait", status=Exit.TEMPORARY).startswith("Nothing is reclaimed: paused by root")

    assert command("resume") == "Reclaims go on.\n"
    assert re.match(r"Job \d+ is done", command("sweep --wait"))
    recent = "history --since=-10min"
    wait_until(
        lambda: any(row["freed_bytes"] for row in command.json(recent)),
        timeout_sec=60,
        what="what was left is reclaimed, and in the journal",
    )
    last = [row for row in command.json(recent) if row["freed_bytes"]][-1]
    value, table = command.each(f"show {last['id'][:12]} -p freed_bytes --value", recent)
    assert value == f"{last['freed_bytes']}\n"
    assert last["id"][:8] in table


def test_looking_as_somebody(machine: Machine, command: Command) -> None:
    uids = {}
    for user in ("alice", "bob"):
        machine.login(user, "head -c 1M /dev/urandom >ctl; cat ctl >/dev/null")
        uids[user] = int(machine.run(f"id -u {user}").stdout)

    def of(record: dict[str, Any]) -> set[int | None]:
        return {each.get("uid") for each in record["teardowns"]}

    def seen(user: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = command.json("history --since=-10min", user)
        return rows

    wait_until(
        lambda: {uid for row in seen("root") if len(of(row)) == 1 for uid in of(row)} >= set(uids.values()),
        timeout_sec=60,
        what="both are in the history",
    )
    own = seen("alice")
    assert {uid for row in own for uid in of(row)} == {uids["alice"]}
    others = next(row["id"] for row in seen("root") if of(row) == {uids["bob"]})
    assert command(f"show {others}", "alice", status=Exit.DENIED).startswith(
        "Not permitted without a password"
    )
    shown, status, listed, config = command.each(
        f"show {own[-1]['id']}", "status", "list", "config", user="alice"
    )
    assert f"id={own[-1]['id']}\n" in shown
    assert f"user-{uids['bob']}.slice" not in status + listed
    assert re.search(r"sweep\.cpu_percent +\S+ +default\n", config)
    assert re.search(rf"pressure\.pause_percent +100 +{DROPIN}:1\n", config)


def test_somebody_changes_nothing(command: Command) -> None:
    """One of each action."""
    for sentence in command.each("pause", "reclaim user.slice", "reload", user="alice", status=Exit.DENIED):
        assert sentence == "Not permitted without a password; try as root.\n"


@pytest.mark.usefixtures("command")
def test_monitor_hears_a_sweep(machine: Machine) -> None:
    watched = machine.run(
        "logindguardctl monitor -n 1 -q --json=short >/run/user-monitor & watcher=$!;"
        " while kill -0 $watcher 2>/dev/null; do logindguardctl sweep --wait -q; done;"
        " wait $watcher && cat /run/user-monitor",
    ).stdout
    assert json.loads(watched)["signal"] in ("Reclaimed", "JobFinished")


def test_doctor_finds_nothing_broken(command: Command) -> None:
    with ThreadPoolExecutor(CPUS) as pool:
        answers = list(pool.map(lambda user: command.json("doctor", user), ("root", "alice")))
    for answer in answers:
        found = {check["check"]: check["state"] for check in answer["checks"]}
        assert (found["service"], found["mode"], found["pam-hook"]) == ("ok", "ok", "ok"), found
        assert "fail" not in found.values()


def test_what_is_told_where_the_service_does_not_run(machine: Machine, command: Command) -> None:
    machine.run("systemctl stop logindguard")
    try:
        status, restore = command.each("status", "restore")
        assert "Mode: not running; it would be precise" in status
        assert restore == "Nothing was left to put back.\n"
        assert "systemctl start logindguard" in command("sweep", status=Exit.UNAVAILABLE)
        assert "only root" in command("restore", "alice", status=Exit.DENIED)
    finally:
        machine.run("systemctl start logindguard")
        on_the_bus(machine)
