"""The same login and the same job of cron again and again: what is read from the disk anew each time?

Driven from outside, for the logins are real ones.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.meter import nth_percent
from tests.bench.result import Bar, Result, Side, Value, load
from tests.demo.progress import Progress
from tests.vm.machine import Machine
from tests.vm.package import deb
from tests.vm.test_kernel import WHERE, put_checkout

TIMES = 100
READ_BYTES = 4 << 20
PAUSE_SEC = 1.0  # between two, in which a guard or a drop does its work
FILES = "/var/tmp/again"
SHARED = ("/lib/x86_64-linux-gnu/libc.so.6", "/usr/bin/python3")
UNIT = "logindguard.service"
DROP = "sync; echo 3 >/proc/sys/vm/drop_caches"


@dataclass(frozen=True, slots=True, kw_only=True)
class Habit:
    """One side, and what is done after each login or job, in the machine's shell."""

    name: str
    after: str = "true"
    settings: str | None = None  # of the guard; None: there is none


HABITS = (
    Habit(name="no guard"),
    Habit(name="drop_caches=3 after each", after=DROP),
    Habit(name="the guard", settings=""),
    Habit(name="the guard, teardown.after: no", settings="teardown: {after: no}\n"),
)


def run(machine: Machine, progress: Progress, scale: float) -> Result:
    times = max(3, round(TIMES * scale))
    before = load()
    put_checkout(machine)
    machine.run(
        f"mkdir -p {FILES} && for kind in login cron; do"
        f" head -c {READ_BYTES} /dev/zero >{FILES}/$kind; done; sync"
    )
    sides = {habit.name: one(machine, progress, habit, times) for habit in HABITS}
    facts = machine.run(
        f"cd {WHERE} && PYTHONDONTWRITEBYTECODE=1 python3 -c"
        " 'import json; from tests.bench.result import machine; print(json.dumps(machine()))'"
    ).stdout
    return Result(
        bench="again",
        about=f"the same login by ssh and the same job of cron {times} times each, {READ_BYTES >> 20} MiB"
        f" read by each, {PAUSE_SEC:g} s apart; a live process of another user maps the shared programs",
        size={"times": times, "bytes": READ_BYTES},
        sides=list(sides.values()),
        bars=bars(sides),
        load_before=before,
        machine=json.loads(facts),
    )


def one(machine: Machine, progress: Progress, habit: Habit, times: int) -> Side:
    guard(machine, habit.settings)
    machine.run(f"{DROP}; sleep 1", timeout_sec=180)
    with machine.session(
        "bob", "exec python3 -c 'import sys; print(1, flush=True); sys.stdin.read()'"
    ) as other:
        other.readline()
        machine.login("alice", job("login"))  # whatever a first login reads and writes
        cron(machine, "first")
        logins, logins_kib = repeated(
            machine,
            habit,
            times,
            lambda number: machine.login("alice", job("login"), timeout_sec=120).seconds,
            lambda number: progress.now(f"{habit.name}: {number} of {times} logins"),
        )
        jobs, jobs_kib = repeated(
            machine,
            habit,
            times,
            lambda number: cron(machine, str(number)),
            lambda number: progress.now(f"{habit.name}: {number} of {times} jobs"),
        )
        resident = {path: resident_percent(machine, path) for path in SHARED}
    progress.step(
        f"{habit.name}: each login read {logins_kib} KiB, each job {jobs_kib} KiB from the disk; dying under"
        f" the root {machine.dying('/')}"
    )
    figures: dict[str, Value] = {
        "read_by_a_login_kib": logins_kib,
        "login_median_msec": round(nth_percent(logins, 50) * 1000),
        "login_p95_msec": round(nth_percent(logins, 95) * 1000),
        "read_by_a_job_kib": jobs_kib,
        "job_median_msec": round(nth_percent(jobs, 50) * 1000),
        "job_p95_msec": round(nth_percent(jobs, 95) * 1000),
        "dying_at_the_end": machine.dying("/"),
        "libc_resident_percent": resident[SHARED[0]],
        "python_resident_percent": resident[SHARED[1]],
    }
    return Side(rival=habit.name, figures=figures)


def guard(machine: Machine, settings: str | None) -> None:
    """Runs it with these settings, or not at all."""
    installed = machine.run(f"systemctl cat {UNIT}", check=False).status == 0
    if settings is None:
        if installed:
            machine.run(f"systemctl stop {UNIT}")
        return
    if not installed:
        machine.install_deb(deb())
    dropin = "/etc/logindguard/config.d/90-bench.yaml"
    machine.run(f"mkdir -p $(dirname {dropin}) && cat >{dropin}", data=settings.encode())
    machine.run(f"systemctl restart {UNIT}")


def repeated(
    machine: Machine, habit: Habit, times: int, act: Callable[[int], float], show: Callable[[int], None]
) -> tuple[list[float], int]:
    """How long each took, in seconds, and what was read from the disk for it, in KiB on average."""
    took = []
    read_before = read_sectors(machine)
    for number in range(times):
        show(number)
        took.append(act(number))
        time.sleep(PAUSE_SEC)
        machine.run(habit.after, timeout_sec=180)
    return took, (read_sectors(machine) - read_before) // 2 // times


def job(kind: str) -> str:
    return f"cat {FILES}/{kind} >/dev/null; python3 -c 'import json'"


def cron(machine: Machine, name: str) -> float:
    """A unit as systemd-cron makes one for each run; seconds."""
    run = f"systemd-run --quiet --wait --collect --uid=alice --unit=cron-again-{name}.service"
    return machine.run(f'{run} sh -c "{job("cron")}"', timeout_sec=120).seconds


def read_sectors(machine: Machine) -> int:
    return int(machine.run("awk '$3 == \"vda\" {print $6}' /proc/diskstats").stdout)


def resident_percent(machine: Machine, path: str) -> int:
    told = machine.run(f"fincore --bytes --noheadings --output RES,SIZE $(realpath {path})").stdout.split()
    return int(told[0]) * 100 // int(told[1])


def bars(sides: dict[str, Side]) -> list[Bar]:
    """Where repeats are colder than without the guard, it is said by how much."""
    none, dropped, guarded, kept = (sides[habit.name].figures for habit in HABITS)
    found = []
    for kind in ("login", "job"):
        key = f"read_by_a_{kind}_kib"
        found.append(
            Bar(
                wanted=f"a {kind} reads less from the disk than beside drop_caches",
                found=f"{guarded[key]} KiB, {dropped[key]} with drop_caches, {none[key]} with no guard,"
                f" {kept[key]} with teardown.after: no",
                met=_number(guarded[key]) <= _number(dropped[key]),
            )
        )
    found.append(
        Bar(
            wanted="shared programs that others map stay resident",
            found=f"libc {guarded['libc_resident_percent']} %,"
            f" {none['libc_resident_percent']} % with no guard",
            met=_number(guarded["libc_resident_percent"]) >= _number(none["libc_resident_percent"]) - 5,
        )
    )
    return found


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return value
