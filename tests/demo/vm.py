"""What `make demo-vm` runs: the same logins on a freshly booted Debian without and with the guard.

Exits 0 when the guard did its job, 1 with a sentence when it did not or the demo could not run.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from logindguard.model import ReclaimRecord
from logindguard.record.entry import from_fields
from tests.demo.interrupt import Interrupted, raise_when_interrupted
from tests.demo.progress import Progress
from tests.demo.table import number, seconds, size, table
from tests.lab import neighbour
from tests.vm.image import RigError
from tests.vm.machine import Machine
from tests.vm.package import deb
from tests.vm.ssh import CommandError
from tests.vm.system import BOOKWORM

LOGINS = 20  # a side: about 20 s under TCG on two idle cores
READ_BYTES = 4 << 20
WRITTEN_BYTES = 64 << 10
NEIGHBOUR_BYTES = 100 << 20
# From the last logout on: past the 10 s after which systemd removes the user's slice.
WAIT_SEC = 15
WAIT_MAX_SEC = 60  # for the guard, as long as it is above the floor
ABOVE_FLOOR = 2
USER_SLICE = "/user.slice"
UNIT = "logindguard.service"


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one side left behind, and what the guard told of it (None without the guard)."""

    dying_before: int
    dying_after: int
    waited_sec: float
    residue_bytes: int
    stolen_pages: int
    floor: int
    freed_bytes: int | None = None
    release_usec: float | None = None
    cpu_usec: int | None = None


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make demo-vm", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--logins", type=int, default=LOGINS, help=f"on each side (default: {LOGINS})")
    logins = parser.parse_args(argv).logins
    progress = Progress()
    raise_when_interrupted()
    try:
        # The package is built while the machine is, and needed only for the second side.
        with ThreadPoolExecutor(1) as builder:
            package = builder.submit(deb, told=progress.step)
            with Machine(BOOKWORM, told=progress.step) as machine:
                progress.step(f"booted in {machine.boot_seconds:.0f} s")
                without, guarded = both_sides(machine, package, progress, logins)
                failures = shortcomings(logins, without, guarded)
                print(f"\n{summary(logins, without, guarded)}\n", flush=True)
                if failures:
                    print(machine.journal("--unit", UNIT, "--lines=40"), file=sys.stderr)
    except (RigError, CommandError, TimeoutError, ConnectionError) as error:
        progress.verdict(f"The demo could not run to its end: {error}", good=False)
        return 1
    except Interrupted as interrupted:
        progress.verdict("Interrupted.", good=False)
        return 128 + interrupted.number
    for failure in failures:
        progress.verdict(failure, good=False)
    if not failures:
        progress.verdict(
            f"The guard did its job: {without.dying_after} dying memcgs without it,"
            f" {guarded.dying_after} with it, and no page taken from the live neighbour.",
            good=True,
        )
    return 1 if failures else 0


def both_sides(
    machine: Machine, package: Future[Path], progress: Progress, logins: int
) -> tuple[Round, Round]:
    try:
        prepare(machine, logins)
        without = play(machine, progress, logins=logins, guarded=False)
        machine.reset()  # both sides start alike: nothing dying, nothing in the page cache
        machine.install_deb(package.result())
        machine.run(f"systemctl is-active {UNIT}")
        progress.step(f"booted again, installed {package.result().name}")
        return without, play(machine, progress, logins=logins, guarded=True)
    except (CommandError, ConnectionError):
        print(machine.report(), file=sys.stderr)
        raise


def play(machine: Machine, progress: Progress, *, logins: int, guarded: bool) -> Round:
    """One side: a live neighbour, the logins, the wait, the count."""
    side = "with" if guarded else "without"
    cpu_before = cpu_usec(machine) if guarded else 0
    dying_before = machine.dying(USER_SLICE)
    hold = f"python3 /var/tmp/neighbour.py --work-dir hoard-{side} --bytes {NEIGHBOUR_BYTES}"
    with machine.session("bob", hold) as live:
        progress.now(f"a neighbour fills {size(NEIGHBOUR_BYTES)} of page cache")
        live.readline()
        steals_before = machine.memory_stat(live.cgroup)["pgsteal"]
        since = machine.run("date +@%s").stdout.strip()
        log_in(machine, progress, side, logins)
        waited_sec = wait_for_end(machine, progress, guarded=guarded)
        dying_after = machine.dying(USER_SLICE)
        residue_bytes = file_bytes_of_dying(machine)
        stolen_pages = machine.memory_stat(live.cgroup)["pgsteal"] - steals_before
        cpu = cpu_usec(machine) - cpu_before if guarded else None
        told = records(machine, since) if guarded else []
        progress.step(
            f"{side} the guard: {dying_after} dying memcgs, {waited_sec:.0f} s after {logins} logouts"
        )
        floor = drop(machine)
    released = [each.release_usec for each in told if each.release_usec is not None]
    return Round(
        dying_before=dying_before,
        dying_after=dying_after,
        waited_sec=waited_sec,
        residue_bytes=residue_bytes,
        stolen_pages=stolen_pages,
        floor=floor,
        freed_bytes=sum(each.freed_bytes for each in told) if guarded else None,
        release_usec=statistics.median(released) if released else None,
        cpu_usec=cpu,
    )


def prepare(machine: Machine, logins: int) -> None:
    """A file for each login to read, none of it in memory."""
    machine.put(Path(neighbour.__file__), "/var/tmp/neighbour.py")
    machine.run(
        "mkdir /var/tmp/demo && cd /var/tmp/demo && for side in without with; do"
        f" for n in $(seq {logins}); do head -c {READ_BYTES} /dev/zero >$side-$n; done; done; sync;"
        # Only these: who reads the evicted programs and libraries anew would be charged for them.
        " for file in *; do dd status=none iflag=nocache count=0 if=$file; done",
        timeout_sec=180,
    )


def drop(machine: Machine) -> int:
    """Dying memcgs that are left when all page cache that can go has gone."""
    machine.run("sync; echo 3 >/proc/sys/vm/drop_caches; sleep 1", timeout_sec=180)
    return machine.dying(USER_SLICE)


def log_in(machine: Machine, progress: Progress, side: str, logins: int) -> None:
    commands = [
        f"cat /var/tmp/demo/{side}-{n} >/dev/null; head -c {WRITTEN_BYTES} /dev/zero >written-{side}-{n}"
        for n in range(1, logins + 1)
    ]
    batch = 4
    for start in range(0, logins, batch):
        progress.now(f"{side} the guard: {start} of {logins} logins by ssh")
        machine.logins("alice", commands[start : start + batch])


def wait_for_end(machine: Machine, progress: Progress, *, guarded: bool) -> float:
    """Waits WAIT_SEC from the last logout, for the guard up to WAIT_MAX_SEC; returns the seconds it took.

    By then systemd has removed the user's slice, 10 s after the last logout.
    """
    started = time.monotonic()
    while (waited_sec := time.monotonic() - started) < WAIT_MAX_SEC:
        dying = machine.dying(USER_SLICE)
        if waited_sec > WAIT_SEC and (not guarded or dying <= ABOVE_FLOOR):
            break
        progress.now(f"{dying} dying memcgs {waited_sec:.0f} s after the last logout")
        time.sleep(1)
    return waited_sec


def file_bytes_of_dying(machine: Machine) -> int:
    """Page cache under user.slice that no live cgroup holds: its own minus that of all live leaves."""
    top = f"{machine.memory_root}{USER_SLICE}"
    leaves = f"find {top} -mindepth 1 -type d -links 2 -printf '%p/memory.stat\\n'"
    live = machine.run(
        f"{leaves} | xargs cat | awk '$1 == \"file\" {{sum += $2}} END {{print sum + 0}}'"
    ).stdout
    return max(0, machine.memory_stat(USER_SLICE)["file"] - int(live))


def records(machine: Machine, since: str) -> list[ReclaimRecord]:
    entries = machine.journal_records("--unit", UNIT, "--since", since)
    return [from_fields(entry) for entry in entries if "LOGINDGUARD_OUTCOME" in entry]


def cpu_usec(machine: Machine) -> int:
    return int(machine.run(f"systemctl show --property=CPUUsageNSec --value {UNIT}").stdout) // 1000


def shortcomings(logins: int, without: Round, guarded: Round) -> list[str]:
    """Why the guard did not do its job, a sentence each."""
    failures = []
    if without.dying_after < logins // 2:
        failures.append(
            f"Without the guard only {without.dying_after} memcgs stayed dying: there was nothing to guard."
        )
    if guarded.dying_after > guarded.floor + ABOVE_FLOOR or guarded.dying_after * 4 > without.dying_after:
        failures.append(
            f"The guard left {guarded.dying_after} dying memcgs after {guarded.waited_sec:.0f} s; without it"
            f" there were {without.dying_after}, and {guarded.floor} are what nothing can free."
        )
    if guarded.stolen_pages:
        failures.append(f"The live neighbour lost {guarded.stolen_pages} pages while the guard ran.")
    if guarded.release_usec is None:
        failures.append("The guard's journal has no record of a release.")
    return failures


def summary(logins: int, without: Round, guarded: Round) -> str:
    def either(show: Callable[[Round], str]) -> tuple[str, str]:
        return show(without), show(guarded)

    return table(
        (
            ("", ("WITHOUT GUARD", "WITH GUARD")),
            ("logins by ssh", (str(logins), str(logins))),
            ("dying memcgs under user.slice before", either(lambda each: number(each.dying_before))),
            ("dying memcgs under user.slice after", either(lambda each: number(each.dying_after))),
            ("  seconds after the last logout", either(lambda each: f"{each.waited_sec:.0f}")),
            ("  floor: left after sync and drop_caches", either(lambda each: number(each.floor))),
            ("page cache held by dying memcgs after", either(lambda each: size(each.residue_bytes))),
            ("page cache freed by the guard", either(lambda each: size(each.freed_bytes))),
            ("pages stolen from the live neighbour", either(lambda each: number(each.stolen_pages))),
            ("seconds from logout to release, median", either(lambda each: seconds(each.release_usec))),
            ("CPU seconds used by the guard", either(lambda each: seconds(each.cpu_usec))),
        )
    )


if __name__ == "__main__":
    sys.exit(main())
