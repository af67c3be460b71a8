"""Who, why and how much, on a real Debian: what blame, explain and inventory say beside the known truth."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest

from logindguard.owners import user_of
from logindguard.paths import uid_of_path
from tests.conftest import Tell
from tests.unit.test_metrics import parsed, value
from tests.vm.conftest import on
from tests.vm.host import FILES, UNIT, Host
from tests.vm.machine import wait_until
from tests.vm.system import TRIXIE

LOGINS = {"alice": 9, "carol": 7, "bob": 2}  # carol lingers; the manager of the others comes and goes
JOBS, CRASHES = 4, 6
PLANTED = 10
COVERED = (
    "units:\n  include: [session-*.scope, user@*.service, user-*.slice, cron-*.service, crash-*.service]\n"
)
# An hour in a minute: each run writes a file of its own, and is a cgroup of its own.
WORK = """
write='head -c 65536 /dev/urandom >/var/tmp/see-$$'
for job in $(seq {jobs}); do systemd-run --quiet --wait --unit=cron-leak.service sh -c "$write"; done
systemd-run --quiet --unit=crash-loop.service -p Restart=always -p RestartSec=100ms \
    -p StartLimitIntervalSec=1h -p StartLimitBurst={crashes} sh -c "$write; exit 1"
until systemctl is-failed --quiet crash-loop.service; do sleep 0.2; done
systemctl reset-failed crash-loop.service
rm /var/tmp/see-*
"""
# What hangs dying right below each live cgroup, by cgroup.stat alone.
COUNT = """
import json, os
top = "/sys/fs/cgroup"
def dying(path):
    with open(path + "/cgroup.stat") as stat:
        return int(dict(line.split() for line in stat)["nr_dying_descendants"])
found = {}
for path, names, _ in os.walk(top):
    own = dying(path) - sum(dying(f"{path}/{name}") for name in names)
    if own:
        found[path.removeprefix(top) or "/"] = own
print(json.dumps(found))
"""


def ctl(host: Host, *words: str) -> Any:
    return json.loads(host.machine.run(f"logindguardctl {' '.join(words)} --json=short --quiet").stdout)


def blamed(host: Host, by: str, key: str = "") -> dict[str, Any]:
    return {
        str(row.get(key or by, "")): row
        for row in ctl(host, "blame", f"--by={by}", f"--since={host.since[:-3]}")
    }


def sessions_ended(host: Host) -> int:
    """Scopes of sessions that went since the host was marked, by systemd's own messages."""
    told = host.machine.journal("_PID=1", "--since", host.since)
    return len(set(re.findall(r"(session-c?\d+\.scope): Deactivated successfully", told)))


def counted(host: Host) -> dict[str, int]:
    found: dict[str, int] = json.loads(host.machine.run("python3 -", data=COUNT.encode()).stdout)
    return found


@pytest.mark.load
def test_blame_tells_the_known_truth(host: Host, tell: Tell) -> None:
    """Users at different rates, one of them lingering, cron's jobs, a service that fails and starts again."""
    host.machine.run("loginctl enable-linger carol")
    with host.settings(COVERED):
        try:
            host.machine.run("logindguardctl pause --for=1h")  # what they leave stays, to be looked at
            for user, count in LOGINS.items():
                host.make_files(user, count)
                host.log_in(user, count, files=user)
            host.machine.run(WORK.format(jobs=JOBS, crashes=CRASHES), timeout_sec=120)
            expected = {
                "session-*.scope": sessions_ended(host),  # a test before may have left one or two to end now
                "crash-loop.service": CRASHES,
                "cron-leak.service": JOBS,
            }
            assert expected["session-*.scope"] in range(sum(LOGINS.values()), sum(LOGINS.values()) + 4)
            tell(f"ended, as systemd tells: {expected}")

            def told() -> dict[str, Any]:
                rows = blamed(host, "unit")
                found.update({unit: rows[unit]["teardowns"] for unit in expected if unit in rows})
                return rows if found == expected else {}

            found: dict[str, int] = {}

            def booked() -> dict[str, Any]:
                rows = blamed(host, "user")
                found = {str(row.get("uid", user)): row["teardowns"] for user, row in rows.items()}
                ended = {each.inode: user_of(each) for record in host.records() for each in record.teardowns}
                right = {user: count for user, count in found.items() if count} == Counter(ended.values())
                return rows if right else {}

            try:
                units = wait_until(told, timeout_sec=60, what="every teardown is booked, and none twice")
            except TimeoutError:
                assert found == expected  # for its difference
                raise
            users = wait_until(booked, timeout_sec=60, what="each is booked to its user")
            assert sorted(expected, key=lambda unit: -units[unit]["dying"]) == list(expected)
            assert sorted(LOGINS, key=lambda user: -users[user]["dying"]) == list(LOGINS)
            own = json.loads(host.machine.run("logindguardctl blame --by=user -jq", user="alice").stdout)
            assert {row.get("user") for row in own if row["teardowns"]} == {"alice"}
            tell(f"dying by user: { {user: row['dying'] for user, row in users.items()} }")
            tell(f"dying by unit: { {unit: row['dying'] for unit, row in units.items()} }")

            def exact() -> bool:
                before = counted(host)
                listed = {row["path"]: row["dying"] for row in ctl(host, "list")}
                whole = sum(row["dying"] for row in blamed(host, "slice").values())
                return listed == before == counted(host) and abs(whole - sum(before.values())) < 1

            wait_until(
                exact, timeout_sec=90, what="what is dying by parent and by owner is what the kernel counts"
            )
        finally:
            host.machine.run("logindguardctl resume; loginctl disable-linger carol")


def test_explain_names_the_files(host: Host, tell: Tell) -> None:
    """Planted while the guard is off; one of them is deleted, and open in a process of root's."""
    host.machine.run("loginctl enable-linger alice")
    try:
        host.machine.login("alice", "true")
        host.guard("stop")
        host.drop()
        host.make_files("planted", PLANTED, read_before=True)
        host.machine.login("alice", f"cat {FILES}/planted-* >/dev/null")
        last = f"{FILES}/planted-{PLANTED - 1}"
        hold = f"systemd-run --quiet --unit=holder sh -c 'exec sleep 600 <{last}'"
        host.machine.run(f"{hold}; sleep 1; rm {last}")
        found = ctl(host, "explain", "user-1000.slice", f"--files={FILES}")
        named = {each["path"]: each for each in found["files"]}
        tell(f"explain --files named {len(named)} of {PLANTED} files")
        right = [n for n in range(PLANTED) if f"{FILES}/planted-{n}" in named]
        assert len(right) >= PLANTED - 1
        assert "pid" in named[last]
        assert found["dying"] >= 1
        held = {pin["kind"]: pin["held_bytes"] for pin in found["pins"]}
        assert held["clean"] >= sum(each["charged_bytes"] for each in found["files"]) // 2
    finally:
        host.machine.run("systemctl stop holder; loginctl disable-linger alice", check=False)
        host.guard("start")


def test_a_textfile_where_debian_looks_for_it(host: Host) -> None:
    """The unit's ReadWritePaths= lets it be written there, where the directory was there at the start."""
    place = "/var/lib/prometheus/node-exporter"
    host.machine.run(f"mkdir -p {place}")
    host.guard("restart")
    with host.settings(f"metrics:\n  textfile: {place}/logindguard.prom\n"):
        text = wait_until(
            lambda: host.machine.run(f"cat {place}/*.prom", check=False).stdout,
            timeout_sec=60,
            what="metrics are written",
        )
        assert value(parsed(text), "up") == 1
        host.guard("stop")
        assert host.machine.run(f"ls {place}").stdout == ""
    assert "cannot be told" not in host.machine.journal("--unit", UNIT, "--since", host.since)


@on(TRIXIE)
def test_inventory_lists_single_memcgs(host: Host) -> None:
    """MGLRU is on in Debian 13."""
    host.guard("stop")
    try:
        host.make_files("listed", 3)
        host.log_in("alice", 3, files="listed")
        found = ctl(host, "inventory", "user.slice")
        assert found["source"] == "lru_gen"
        paths = [each["path"] for each in found["memcgs"]]
        assert any(uid_of_path(path) == 1000 and "session-" in path for path in paths)
    finally:
        host.guard("start")
