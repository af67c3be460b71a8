"""What is left of a storm of logins and why, and the cases that page cache alone does not explain."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Tell
from tests.vm.conftest import on
from tests.vm.host import FILES, MIB, UNIT, Host
from tests.vm.machine import wait_until
from tests.vm.system import BOOKWORM

STORM = 60
LEFT_AFTER_SEC = 600

# ext4's own ioctl (Documentation/filesystems/ext4/journal.rst, EXT4_IOC_CHECKPOINT): writes back what the
# journal still refers to, and lets go of it.
CHECKPOINT = """
import fcntl, os, struct
fd = os.open("/", os.O_RDONLY)
fcntl.ioctl(fd, 0x4004662B, struct.pack("I", 0))
"""
NUDGE = "mkdir /sys/fs/cgroup/nudge && rmdir /sys/fs/cgroup/nudge"
SWEEP = "logindguardctl sweep --wait >/dev/null; sleep 1"
# In the order in which they take more than the one before; what goes with a step was pinned by it alone.
STEPS = {
    "writeback structures of clean inodes": NUDGE,
    "page cache that a further sweep takes": f"{SWEEP}; {NUDGE}",
    "the journal's checkpoint list": f"python3 -c '{CHECKPOINT}'; {SWEEP}; {NUDGE}",
    "page cache that a reclaim does not take": f"echo 1 >/proc/sys/vm/drop_caches; {NUDGE}",
    "page cache that waits for writeback": f"sync; echo 1 >/proc/sys/vm/drop_caches; {NUDGE}",
    "inodes and dentries": f"sync; echo 3 >/proc/sys/vm/drop_caches; {NUDGE}",
}


def pinned(host: Host) -> dict[str, int]:
    """How many of those dying on the whole machine go with each step; the last are what nothing frees."""
    found: dict[str, int] = {}
    left = host.machine.dying()
    for name, step in STEPS.items():
        host.machine.run(step, timeout_sec=180)
        time.sleep(2)
        found[name] = left - (left := host.machine.dying())
    return found | {"nothing that can be freed": left}


@pytest.mark.load
@pytest.mark.timeout(1500)
def test_what_is_left_ten_minutes_after_a_storm(host: Host, tell: Tell) -> None:
    host.make_files("storm", STORM)
    host.drop()
    base = host.machine.dying()
    host.log_in("alice", STORM, files="storm")
    ended, seen = time.monotonic(), {}
    for at_sec in (5, 15, 30, 60, 120, 180, 240, 300, 420, LEFT_AFTER_SEC):
        time.sleep(max(0.0, ended + at_sec - time.monotonic()))
        seen[at_sec] = host.machine.dying()
    records = host.records()
    tell(f"{host.machine.system.name}: dying before: {base}; after {STORM} logins, by seconds: {seen}")
    tell(f"stolen: {sum(record.stolen_pages for record in records)} pages in {len(records)} records")
    told = host.machine.run("logindguardctl list; logindguardctl explain user.slice").stdout
    for line in told.splitlines():
        tell(line)
    tell(f"what pinned the rest: {pinned(host)}")


@pytest.mark.load
def test_what_is_read_again_is_counted(host: Host, tell: Tell) -> None:
    """The sign of harm that refaults.py goes by."""
    host.make_files("again", 1, 40 * MIB)
    read = f"cat {FILES}/again-0 >/dev/null"
    host.machine.login("alice", read)
    wait_until(
        lambda: sum(each.freed_bytes for each in host.records()) >= 36 * MIB,
        timeout_sec=120,
        what="what she read is released",
    )
    key = "workingset_refault_file"
    before = vmstat(host)[key]
    host.machine.run(read, timeout_sec=120)
    again = vmstat(host)[key] - before
    tell(f"{host.machine.system.name}: 40 MiB released and read again: {again * 4096 // MIB} MiB counted so")


def vmstat(host: Host) -> dict[str, int]:
    return {key: int(value) for key, value in map(str.split, host.machine.read("/proc/vmstat").splitlines())}


DIR = "/var/tmp/ladder"


def made(name: str, options: str = "", more: str = "") -> str:
    """Commands that mount an ext4 file system of its own at /mnt/NAME."""
    return (
        f"truncate -s 64M {DIR}/{name}.img; mkfs.ext4 -q {more} {DIR}/{name}.img; "
        f"mkdir -p /mnt/{name}; mount -o loop{options} {DIR}/{name}.img /mnt/{name}"
    )


# Each in a slice of its own, which stays: what is made first, and what then ends in a scope there.
CASES = {
    # The kernel is told to swap out what the scope is charged for, before it ends.
    "swapped": (
        "swapon /dev/vdb",
        "head -c 8M /dev/urandom >/dev/shm/swapped; "
        "echo 16M >/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/memory.reclaim || true",
    ),
    "tmpfs": ("mkdir -p /run/ladder", "head -c 4M /dev/urandom >/run/ladder/file"),
    # One at once, one that somebody else holds open.
    "deleted": (
        f"touch {DIR}/open; systemd-run -q --unit=hold-open sh -c 'exec sleep inf <{DIR}/open'",
        f"head -c 1M /dev/urandom >{DIR}/gone; rm {DIR}/gone; "
        f"head -c 1M /dev/urandom >{DIR}/open; rm {DIR}/open",
    ),
    "readonly": (
        made("readonly", ",ro", "-d /etc"),
        "find /mnt/readonly -type f -exec cat {} + >/dev/null",
    ),
    "overlay": (
        f"cd {DIR}; mkdir -p lower upper work /mnt/overlay; head -c 4M /dev/urandom >lower/file; "
        "mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay /mnt/overlay",
        "cat /mnt/overlay/file >/dev/null; echo more >>/mnt/overlay/file; echo new >/mnt/overlay/new",
    ),
    "loop": (made("loop"), "head -c 4M /dev/urandom >/mnt/loop/file; cat /mnt/loop/file >/dev/null"),
    "noatime": (
        f"{made('noatime', ',noatime')}; head -c 4M /dev/urandom >/mnt/noatime/file",
        "cat /mnt/noatime/file >/dev/null",
    ),
    "atime": (
        f"head -c 4M /dev/urandom >{DIR}/read; touch -a -d 2020-01-01 {DIR}/read",
        f"cat {DIR}/read >/dev/null",
    ),
}
UNDO = (
    "swapoff /dev/vdb; systemctl stop 'hold-*'; umount /mnt/readonly /mnt/overlay /mnt/loop /mnt/noatime; "
    f"rm -rf {DIR} /run/ladder /dev/shm/swapped; "
    "sysctl -qw vm.dirty_expire_centisecs=3000 vm.dirty_writeback_centisecs=500"
)
RELEASED = {"deleted", "readonly", "overlay", "noatime", "atime"}


@pytest.fixture
def cases(host: Host) -> Iterator[Host]:
    """Made, on a host whose clocks are fast: the ladder goes by them."""
    run = host.machine.run
    run("mkdir -p /var/tmp/ladder; sysctl -qw vm.dirty_expire_centisecs=100 vm.dirty_writeback_centisecs=100")
    for name, (make, _) in CASES.items():
        run(
            f"systemd-run -q --slice=ladder-{name} --unit=hold-{name} sleep inf; {{ {make}; }}",
            timeout_sec=180,
        )
    run("sync; echo 1 >/proc/sys/vm/drop_caches", timeout_sec=180)
    # Each pass looks at the clocks anew.
    with host.settings("log_level: debug\nsweep: {interval: 10s}\n"):
        host.mark()
        yield host
    run(UNDO, check=False, timeout_sec=180)


def left(host: Host) -> dict[str, dict[str, Any]]:
    """The cases of which something is dying, as `logindguardctl list` has them."""
    rows = json.loads(host.machine.run("logindguardctl list --json=short").stdout)
    by_path = {row["path"]: row for row in rows}
    paths = {name: f"/ladder.slice/ladder-{name}.slice" for name in CASES}
    return {name: by_path[path] for name, path in paths.items() if path in by_path}


def test_the_service_has_a_cgroup_to_nudge_with_and_starts_again(host: Host) -> None:
    """Its process is one level down: what starts the next one must find room above."""
    machine = host.machine
    unit = f"{machine.memory_root}/system.slice/{UNIT}"

    def main_pid() -> str:
        return machine.run(f"systemctl show --value -p MainPID {UNIT}").stdout.strip()

    before = main_pid()
    assert machine.read(f"{unit}/cgroup.subtree_control").split() == ["memory"]
    assert before in machine.read(f"{unit}/main/cgroup.procs").split()
    dropins = f"/run/systemd/system/{UNIT}.d"
    soon = b"[Service]\nRestartSec=1\n"
    machine.run(f"mkdir -p {dropins} && cat >{dropins}/soon.conf && systemctl daemon-reload", data=soon)
    machine.run(f"kill -KILL {before}")
    wait_until(lambda: main_pid() not in ("0", before), timeout_sec=60, what="it was started again")
    host.guard("start")  # returns when it is ready
    assert main_pid() in machine.read(f"{unit}/main/cgroup.procs").split()
    machine.run(f"rm -r {dropins} && systemctl daemon-reload")


@on(BOOKWORM)  # where mkfs.ext4 is
@pytest.mark.timeout(400)
def test_what_page_cache_alone_does_not_explain(cases: Host, tell: Tell) -> None:
    """Each is released, or the sweep says what holds it."""
    for name, (_, ended) in CASES.items():
        cases.machine.run(f"systemd-run -q --scope --slice=ladder-{name} sh -c {shlex.quote(ended)}")
    began = time.monotonic()

    def all_done() -> bool:
        rows = left(cases)
        return {"tmpfs", "swapped"} <= rows.keys() and all(r["rung"] == "verdict" for r in rows.values())

    wait_until(all_done, timeout_sec=180, what="each is released or has its verdict", every_sec=2)
    found = {name: row["reason"] for name, row in left(cases).items()}
    tell(f"{cases.machine.system.name}: {time.monotonic() - began:.0f} s; left: {found}")
    tell(f"nudges: {cases.machine.journal('--unit', UNIT, '--since', cases.since).count('was nudged')}")
    assert RELEASED.isdisjoint(found)
    # Nothing else is written to that file system, so its journal may not let go: some pages of metadata.
    assert "that the kernel does not give up" in found.get(
        "loop", "page cache that the kernel does not give up"
    )
    assert "shared memory" in found["tmpfs"]
    assert "swap" in found["swapped"]  # out already, or what is left and must not be
    assert sum(record.stolen_pages for record in cases.records()) == 0
