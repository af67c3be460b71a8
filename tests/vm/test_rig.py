"""The rig gives what the other tests build on: a real systemd, logind and kernel."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.vm.image import CHECKOUT
from tests.vm.machine import Machine, wait_until
from tests.vm.ssh import CommandError

SESSION_REMOVED = "type='signal',sender='org.freedesktop.login1',member='SessionRemoved'"


def test_boots_without_failed_units(bare_bookworm: Machine) -> None:
    assert bare_bookworm.run("systemctl is-system-running", check=False).stdout.strip() == "running"
    assert bare_bookworm.run("systemctl --failed --no-legend").stdout == ""


def test_has_cgroup_v2_as_systemd_mounts_it(bare_bookworm: Machine) -> None:
    mounts = bare_bookworm.read("/proc/mounts")
    line = re.search(r"^cgroup2 /sys/fs/cgroup cgroup2 (\S+)", mounts, re.MULTILINE)
    assert line is not None
    assert "memory_recursiveprot" in line[1].split(",")
    assert bare_bookworm.memory_stat("/user.slice")["file"] > 0


def test_commands_of_the_rig_are_no_logins(bare_bookworm: Machine) -> None:
    before = bare_bookworm.run("loginctl --no-legend").stdout
    uid = bare_bookworm.run("id -u", user="carol").stdout
    assert bare_bookworm.run("loginctl --no-legend").stdout == before
    assert uid.strip() == "1002"


def test_a_login_is_a_session_scope_that_goes_away(bare_bookworm: Machine) -> None:
    with bare_bookworm.session("alice", "while read line; do echo $line; done") as session:
        assert re.fullmatch(r"/user\.slice/user-1000\.slice/session-\d+\.scope", session.cgroup)
        assert session.ask("there") == "there"
        assert bare_bookworm.memory_stat(session.cgroup)["pgsteal"] == 0
    gone = f"test ! -e /sys/fs/cgroup{session.cgroup}"
    wait_until(
        lambda: bare_bookworm.run(gone, check=False).status == 0, timeout_sec=10, what="the scope is gone"
    )


def test_logout_is_signalled_by_logind(bare_bookworm: Machine) -> None:
    listen = f"timeout 30 dbus-monitor --system {shlex.quote(SESSION_REMOVED)} >/run/removed"
    listener = threading.Thread(target=bare_bookworm.run, args=[listen], kwargs={"check": False})
    listener.start()
    try:
        wait_until(
            lambda: bare_bookworm.run("pgrep -x dbus-monitor", check=False).status == 0,
            timeout_sec=10,
            what="dbus-monitor listens",
        )
        result = bare_bookworm.login("alice", "cat /proc/self/cgroup")
        session = re.search(r"session-(\d+)\.scope", result.stdout)
        assert session is not None
        wait_until(
            lambda: f'string "{session[1]}"' in bare_bookworm.read("/run/removed"),
            timeout_sec=10,
            what="SessionRemoved",
        )
    finally:
        bare_bookworm.run("pkill -x dbus-monitor", check=False)
        listener.join()


def test_sessions_that_wrote_stay_as_dying(bare_bookworm: Machine) -> None:
    bare_bookworm.run("systemctl stop logindguard.service", check=False)
    try:
        bare_bookworm.run("sync; echo 3 >/proc/sys/vm/drop_caches")
        before = bare_bookworm.dying("/user.slice")
        bare_bookworm.logins("alice", [f"head -c 1M /dev/zero >~/written-{n}" for n in range(5)])
        # A few of `before` may go meanwhile: the kernel looks after their writeback when others go offline.
        wait_until(
            lambda: bare_bookworm.dying("/user.slice") > before, timeout_sec=10, what="the sessions are dying"
        )
    finally:
        bare_bookworm.run("systemctl start logindguard.service", check=False)


def test_a_failed_command_tells_its_output(bare_bookworm: Machine) -> None:
    with pytest.raises(CommandError, match="ended with status 3\nto stdout\nto stderr"):
        bare_bookworm.run("echo to stdout; echo to stderr >&2; exit 3")
    with pytest.raises(CommandError, match="did not end within"):
        bare_bookworm.run("sleep 5", timeout_sec=0.5)
    assert bare_bookworm.login("bob", "exit 7", check=False).status == 7


def test_files_and_logs_come_across(bare_bookworm: Machine) -> None:
    bare_bookworm.put(Path(__file__), "/var/tmp/a file", mode=0o600)
    assert bare_bookworm.read("/var/tmp/a file") == Path(__file__).read_text()
    bare_bookworm.run("logger --tag rig 'said once'")
    records = wait_until(
        lambda: bare_bookworm.journal_records("SYSLOG_IDENTIFIER=rig"), timeout_sec=10, what="the record"
    )
    assert [record["MESSAGE"] for record in records] == ["said once"]
    assert "said once" in bare_bookworm.journal("--identifier=rig")
    assert "Debian GNU/Linux 12" in bare_bookworm.console()


def test_swap_is_there_and_off(bare_bookworm: Machine) -> None:
    assert bare_bookworm.run("swapon --noheadings").stdout == ""
    bare_bookworm.run("swapon /dev/vdb && swapoff /dev/vdb")


def test_the_machine_reaches_nothing(bare_bookworm: Machine) -> None:
    # 10.0.2.2 would be the host: restrict=on drops it.
    probe = "timeout 3 bash -c 'exec 3<>/dev/tcp/10.0.2.2/22'"
    assert bare_bookworm.run(probe, check=False).status != 0
    assert bare_bookworm.run("ip route show default").stdout == ""


def test_reset_is_a_power_cut(bare_bookworm: Machine) -> None:
    before = bare_bookworm.read("/proc/sys/kernel/random/boot_id")
    bare_bookworm.run("echo kept >/var/tmp/kept; sync; echo lost >/run/lost")
    bare_bookworm.reset()
    assert bare_bookworm.read("/proc/sys/kernel/random/boot_id") != before
    assert bare_bookworm.read("/var/tmp/kept") == "kept\n"
    assert bare_bookworm.run("test -e /run/lost", check=False).status == 1


def test_the_package_runs_where_it_is_installed(bookworm: Machine) -> None:
    assert bookworm.run("systemctl is-active logindguard.service").stdout.strip() == "active"
    assert bookworm.run("systemctl is-enabled logindguard.service").stdout.strip() == "enabled"
    assert bookworm.journal_records("--unit=logindguard.service")


STARTS = """
import subprocess, sys, time
from tests.vm.machine import Machine
from tests.vm.system import BOOKWORM
machine = Machine(BOOKWORM)
machine._wait_booted = lambda: None
machine.__enter__()
print(machine._qemu.pid, machine._directory, flush=True)
time.sleep(60)
"""


def test_qemu_dies_with_the_process_that_started_it(bare_bookworm: Machine) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STARTS], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process:
        pid, directory = process.stdout.readline().split()
        assert "qemu" in Path(f"/proc/{pid}/comm").read_text()
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), timeout_sec=10, what="QEMU is gone")
    subprocess.run(["rm", "-r", directory], check=True)
