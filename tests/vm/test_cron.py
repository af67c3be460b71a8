"""The three kinds of cron on Debian, and what is reclaimed before the removal with each."""

from __future__ import annotations

import pytest

from logindguard.model import ReclaimRecord, Source
from tests.conftest import Tell
from tests.vm.conftest import on
from tests.vm.hook_host import HOOK, HookHost
from tests.vm.host import FILES
from tests.vm.machine import wait_until
from tests.vm.system import BOOKWORM, BOOKWORM_V1, TRIXIE

pytestmark = [on(BOOKWORM, TRIXIE, BOOKWORM_V1), pytest.mark.timeout(600)]

JOB = "/etc/cron.d/logindguard-test"
# Each time from the disk: what is in memory already is charged to whoever read it first.
READS = f"dd status=none iflag=nocache count=0 if={FILES}/{{0}} && cat {FILES}/{{0}} >/dev/null"
SESSIONS = f"session optional pam_exec.so type=close_session quiet {HOOK}\nsession optional pam_systemd.so\n"
# The next full minute comes soon: cron looks at the clock as it starts.
SOON = "date --set=@$(($(date +%s) / 60 * 60 + 55)) && systemctl restart cron"


def test_debians_own_is_recognised_and_has_no_cgroups(hook_host: HookHost) -> None:
    told = hook_host.machine.run("logindguardctl doctor", check=False).stdout
    assert "Cron jobs run in cron.service itself, without a session." in told
    where = "/var/tmp/where"
    job = f"* * * * * alice cat /proc/self/cgroup >{where}.new; mv {where}.new {where}\n"
    try:
        hook_host.machine.run(f"cat >{JOB}; {SOON}", data=job.encode())
        wait_until(
            lambda: hook_host.machine.run(f"test -e {where}", check=False).status == 0,
            timeout_sec=150,
            what="a job has run",
        )
        assert "/system.slice/cron.service\n" in hook_host.machine.read(where)
    finally:
        hook_host.machine.run(f"rm -f {JOB} {where}")


def test_with_sessions(hook_host: HookHost) -> None:
    """Every minute, both lines of README.md in its stack."""
    machine = hook_host.machine
    hook_host.make_files("cron", 1, read_before=True)
    machine.run("cp /etc/pam.d/cron /var/tmp/pam-cron; cat >>/etc/pam.d/cron", data=SESSIONS.encode())
    try:
        with hook_host.nothing_after(), hook_host.patient_hook():
            job = f"* * * * * alice {READS.format('cron-0')}\n"
            machine.run(f"cat >{JOB}; {SOON}", data=job.encode())
            [record, *_] = wait_until(
                lambda: hook_host.before(Source.PAM), timeout_sec=270, what="a job's record"
            )
    finally:
        machine.run(f"rm -f {JOB}; cp /var/tmp/pam-cron /etc/pam.d/cron; systemctl restart cron")
    assert record.teardowns[0].unit.startswith("session-")
    assert record.teardowns[0].service in ("cron", None)


@pytest.mark.load
def test_systemd_cron(hook_host: HookHost, tell: Tell) -> None:
    """It takes the place of cron; nothing but the package's drop-in is needed."""
    machine = hook_host.machine
    hook_host.make_files("job", 1, read_before=True)
    machine.run(
        "dpkg --remove --force-depends cron; dpkg --install /var/tmp/systemd-cron_*.deb", timeout_sec=180
    )
    try:
        job = f"0 0 1 1 * alice {READS.format('job-0')}\n"
        machine.run(f"cat >{JOB}; systemctl daemon-reload", data=job.encode())
        listed = "systemctl list-unit-files 'cron-logindguard*' --no-legend | awk '/service/ {print $1}'"
        [unit] = wait_until(lambda: machine.run(listed).stdout.split(), timeout_sec=60, what="the job's unit")
        with hook_host.nothing_after(), hook_host.patient_hook():

            def record_of_another_run() -> list[ReclaimRecord]:
                machine.run(f"systemctl start {unit}")
                records = hook_host.before(Source.STOP_POST)  # systemd-cron's own hourly job may be there too
                return [each for each in records if each.teardowns[0].unit == unit]

            # Emulated, one that the guard has too little time for gives nothing, and is not told.
            [record, *_] = wait_until(
                record_of_another_run, timeout_sec=180, what="the job's record", every_sec=3
            )
    finally:
        machine.run(
            f"rm -f {JOB}; dpkg --remove systemd-cron; dpkg --install /var/tmp/cron_*.deb", timeout_sec=180
        )
    tell(f"a job of systemd-cron, {unit}: {record.freed_bytes >> 10} KiB before its removal; {record.reason}")
