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

from tests.vm.conftest import on
from tests.vm.image import CHECKOUT
from tests.vm.machine import Machine, wait_until
from tests.vm.ssh import CommandError
from tests.vm.system import BOOKWORM

pytestmark = on(BOOKWORM)

SESSION_REMOVED = "type='signal',sender='org.freedesktop.login1',member='SessionRemoved'"


def test_commands_of_the_rig_are_no_logins(bare_machine: Machine) -> None:
    before = bare_machine.run("loginctl --no-legend").stdout
    uid = bare_machine.run("id -u", user="carol").stdout
    assert bare_machine.run("loginctl --no-legend").stdout == before
    assert uid.strip() == "1002"


def test_logout_is_signalled_by_logind(bare_machine: Machine) -> None:
    listen = f"timeout 30 dbus-monitor --system {shlex.quote(SESSION_REMOVED)} >/run/removed"
    listener = threading.Thread(target=bare_machine.run, args=[listen], kwargs={"check": False})
    listener.start()
    try:
        wait_until(
            lambda: bare_machine.run("pgrep -x dbus-monitor", check=False).status == 0,
            timeout_sec=10,
            what="dbus-monitor listens",
        )
        result = bare_machine.login("alice", "cat /proc/self/cgroup")
        session = re.search(r"session-(\d+)\.scope", result.stdout)
        assert session is not None
        wait_until(
            lambda: f'string "{session[1]}"' in bare_machine.read("/run/removed"),
            timeout_sec=10,
            what="SessionRemoved",
        )
    finally:
        bare_machine.run("pkill -x dbus-monitor", check=False)
        listener.join()


def test_sessions_that_wrote_stay_as_dying(bare_machine: Machine) -> None:
    bare_machine.run("systemctl stop logindguard.service", check=False)
    try:
        bare_machine.run("sync; echo 3 >/proc/sys/vm/drop_caches")
        before = bare_machine.dying("/user.slice")
        bare_machine.logins("alice", [f"head -c 1M /dev/zero >~/written-{n}" for n in range(5)])
        # A few of `before` may go meanwhile: the kernel looks after their writeback when others go offline.
        wait_until(
            lambda: bare_machine.dying("/user.slice") > before, timeout_sec=10, what="the sessions are dying"
        )
    finally:
        bare_machine.run("systemctl start logindguard.service", check=False)


def test_a_failed_command_tells_its_output(bare_machine: Machine) -> None:
    with pytest.raises(CommandError, match="ended with status 3\nto stdout\nto stderr"):
        bare_machine.run("echo to stdout; echo to stderr >&2; exit 3")
    with pytest.raises(CommandError, match="did not end within"):
        bare_machine.run("sleep 5", timeout_sec=0.5)
    assert bare_machine.login("bob", "exit 7", check=False).status == 7


def test_files_and_logs_come_across(bare_machine: Machine) -> None:
    bare_machine.put(Path(__file__), "/var/tmp/a file", mode=0o600)
    assert bare_machine.read("/var/tmp/a file") == Path(__file__).read_text()
    bare_machine.run("logger --tag rig 'said once'")
    records = wait_until(
        lambda: bare_machine.journal_records("SYSLOG_IDENTIFIER=rig"), timeout_sec=10, what="the record"
    )
    assert [record["MESSAGE"] for record in records] == ["said once"]
    assert "said once" in bare_machine.journal("--identifier=rig")
    assert "Debian GNU/Linux 12" in bare_machine.console()


def test_swap_is_there_and_off(bare_machine: Machine) -> None:
    assert bare_machine.run("swapon --noheadings").stdout == ""
    bare_machine.run("swapon /dev/vdb && swapoff /dev/vdb")


def test_the_machine_reaches_nothing(bare_machine: Machine) -> None:
    # 10.0.2.2 would be the host: restrict=on drops it.
    probe = "timeout 3 bash -c 'exec 3<>/dev/tcp/10.0.2.2/22'"
    assert bare_machine.run(probe, check=False).status != 0
    assert bare_machine.run("ip route show default").stdout == ""


@pytest.mark.load
def test_reset_is_a_power_cut(bare_machine: Machine) -> None:
    before = bare_machine.read("/proc/sys/kernel/random/boot_id")
    bare_machine.run("echo kept >/var/tmp/kept; sync; echo lost >/run/lost")
    bare_machine.reset()
    assert bare_machine.read("/proc/sys/kernel/random/boot_id") != before
    assert bare_machine.read("/var/tmp/kept") == "kept\n"
    assert bare_machine.run("test -e /run/lost", check=False).status == 1


def test_the_package_runs_where_it_is_installed(machine: Machine) -> None:
    assert machine.run("systemctl is-active logindguard.service").stdout.strip() == "active"
    assert machine.run("systemctl is-enabled logindguard.service").stdout.strip() == "enabled"
    assert machine.journal_records("--unit=logindguard.service")


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


def test_qemu_dies_with_the_process_that_started_it(bare_machine: Machine) -> None:
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
