"""What a guard that works may not show over time: growth of its own, warnings, dying memcgs that stay."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.vm.host import UNIT
from tests.vm.machine import Machine

# The pause that somebody asked for: units/logindguard.catalog.
ASKED_FOR = ("819f0fa5561e499db29c8f9e00978ad5",)
# pid, VmRSS in KiB, descriptors, threads, dying below user.slice and in all
SAMPLE = f"""
pid=$(systemctl show --property=MainPID --value {UNIT}); echo $pid
awk '/^VmRSS/ {{print $2}} /^Threads/ {{print $2}}' /proc/$pid/status
ls /proc/$pid/fd | wc -l
cd /sys/fs/cgroup
awk '$1 == "nr_dying_descendants" {{print $2}}' user.slice/cgroup.stat system.slice/cgroup.stat
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Of the guard's process, and of what is dying beside it."""

    passed_sec: float
    pid: int
    rss_kib: int
    threads: int
    fds: int
    dying: int  # below user.slice and system.slice


def sample(machine: Machine, since: float) -> Sample | None:
    """None where the guard is just not there."""
    words = machine.run(SAMPLE, check=False, timeout_sec=180).stdout.split()
    if len(words) != 6 or words[0] == "0":
        return None
    pid, rss, threads, fds, users, systems = map(int, words)
    return Sample(
        passed_sec=round(time.monotonic() - since, 1),
        pid=pid,
        rss_kib=rss,
        threads=threads,
        fds=fds,
        dying=users + systems,
    )


def warnings(machine: Machine, *since: str) -> list[str]:
    """Journal lines of the guard itself that somebody should look at."""
    records = machine.journal_records("--priority=warning", f"_SYSTEMD_UNIT={UNIT}", *since)
    return [str(each["MESSAGE"]) for each in records if each.get("MESSAGE_ID") not in ASKED_FOR]
