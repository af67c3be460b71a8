"""What `make demo-native` runs: the guard on this machine's own kernel, confined to cgroups made for it.

A thousand short-lived cgroups come and go beside a live neighbour, once for each side of a table.
Exits 0 when the guard did its job or has none on such a kernel, 1 with a sentence when it did not
do it, 69 with a sentence when it cannot be shown on this machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from logindguard.model import Mode
from logindguard.text import counted
from tests.demo.guard import Guard, GuardFailed
from tests.demo.host import CannotRun, Host, own_place, resident_pages, swap_on
from tests.demo.interrupt import Interrupted, raise_when_interrupted
from tests.demo.progress import Progress, wrapped
from tests.demo.sides import UNITS, Plan, Round, plans, shortcomings, summary, verdict
from tests.demo.table import size
from tests.lab.leak import Refusal, leaked
from tests.lab.neighbour import neighbour

COUNT = 1000
BYTES_EACH = 64 << 10
STILL_SEC = 3.0  # after so long without a change, nothing more is expected
WAIT_MAX_SEC = 30.0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make demo-native", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--count", type=int, default=COUNT, help="cgroups on each side (default: %(default)s)"
    )
    count = parser.parse_args(argv).count
    progress = Progress()
    raise_when_interrupted()
    try:
        with own_place() as host:
            return show(host, progress, count)
    except (CannotRun, Refusal) as reason:
        told, status = f"The guard cannot be shown on this machine itself: {reason}", os.EX_UNAVAILABLE
    except (GuardFailed, OSError, RuntimeError) as error:
        told, status = f"The demo could not run to its end: {error}", 1
    except Interrupted as interrupted:
        told, status = "Interrupted; what was made has been removed.", 128 + interrupted.number
    progress.verdict(told, good=False)
    return status


def show(host: Host, progress: Progress, count: int) -> int:
    kernel = f"Linux {os.uname().release}, cgroup v{host.version}, {os.cpu_count()} CPUs"
    progress.step(kernel)
    progress.step(f"all that follows happens in the cgroup {host.cgroup_path(host.root)}")
    progress.now("the guard starts and looks at the kernel")
    mode, reason = try_out(host)
    progress.step(f"the guard's mode here is {mode}: {reason}")
    if mode is Mode.OBSERVE:
        progress.verdict(f"There is nothing for it to do on this machine: {reason}.", good=True)
        return 0
    rounds = [play(host, progress, plan, count) for plan in plans(host.version, swap_on=swap_on())]
    print(f"\n{summary(rounds, host.version)}\n", flush=True)
    failures = shortcomings(rounds)
    for sentence in [each for one in rounds for each in (one.sentences if failures else one.sentences[:1])]:
        print(wrapped(f"logindguard: {sentence}"), end="\n\n", flush=True)
    for failure in failures:
        progress.verdict(failure, good=False)
    if not failures:
        progress.verdict(verdict(rounds, host.version), good=True)
    return 1 if failures else 0


def try_out(host: Host) -> tuple[Mode, str]:
    """How the guard works on this kernel, by its own word."""
    with Guard(confined(host.cgroup_path(host.root), UNITS), host.work_dir / "try") as guard:
        return guard.mode()


def play(host: Host, progress: Progress, plan: Plan, count: int) -> Round:
    """One side: a live neighbour, the cgroups that come and go, the wait, the count."""
    parent = host.parent(plan.name)
    beside = parent / "neighbour"
    beside.mkdir()
    place = host.work_dir / plan.name
    place.mkdir()
    side = plan.words
    with ExitStack() as stack:
        progress.now(f"{side}: a neighbour fills {size(plan.neighbour_bytes)} of page cache")
        stack.enter_context(neighbour(work_dir=place / "neighbour", size=plan.neighbour_bytes, cgroup=beside))
        guard = None
        if plan.settings is not None:
            settings = confined(host.cgroup_path(parent), plan.settings)
            guard = stack.enter_context(Guard(settings, place / "guard"))
            guard.mode()
        cpu_before_usec = guard.cpu_usec() if guard else 0
        neighbour_pages = resident_pages(place / "neighbour")
        dying_before = host.dying(parent, BYTES_EACH)
        machine_before = host.machine_dying()

        def released(dying: int) -> bool:
            told = guard is not None and any(each.freed_bytes for each in guard.records)
            # The kernel frees a memcg some moments after its last page; on v1 only this count shows that.
            return dying == 0 and told and host.machine_dying() <= machine_before

        progress.now(f"{side}: {count} cgroups come and go, {size(BYTES_EACH)} of page cache each")
        summary = stack.enter_context(
            leaked(root=parent, work_dir=place / "leak", count=count, bytes_each=BYTES_EACH)
        )
        started = time.monotonic()
        dying_after = wait(host, progress, plan, released)
        waited_sec = time.monotonic() - started
        machine_after = host.machine_dying()
        held_bytes = host.held_by_dying_bytes(parent)
        taken_pages = neighbour_pages - resident_pages(place / "neighbour")
        cpu_usec = guard.cpu_usec() - cpu_before_usec if guard else None
        records = guard.records if guard else []
        progress.step(
            f"{side}: {counted(dying_after, 'dying memcg')}, {waited_sec:.1f} s after the last removal"
        )
        progress.now("what was made is removed")
    releases = [each.release_usec for each in records if each.freed_bytes and each.release_usec]
    return Round(
        plan=plan,
        made=summary.made,
        dying_before=dying_before,
        dying_after=dying_after,
        machine_more=machine_after - machine_before,
        waited_sec=waited_sec,
        held_bytes=held_bytes,
        neighbour_pages=neighbour_pages,
        taken_pages=taken_pages,
        told_pages=sum(each.stolen_pages for each in records) if guard else None,
        freed_bytes=sum(each.freed_bytes for each in records) if guard else None,
        release_usec=statistics.median(releases) if releases else None,
        cpu_usec=cpu_usec,
        sentences=guard.sentences() if guard else (),
    )


def wait(host: Host, progress: Progress, plan: Plan, over: Callable[[int], bool]) -> int:
    """Until the number of dying memcgs is one that `over` takes, or stands still; returns it."""
    started = changed = time.monotonic()
    dying = -1
    while True:
        now = time.monotonic()
        before, dying = dying, host.dying(host.root / plan.name, BYTES_EACH)
        if dying != before:
            changed = now
        if over(dying) or now - changed >= STILL_SEC or now - started >= WAIT_MAX_SEC:
            return dying
        so_far = f"{counted(dying, 'dying memcg')}, {now - started:.0f} s after the last removal"
        progress.now(f"{plan.words}: {so_far}")
        time.sleep(0.1)


def confined(root: str, further: str) -> str:
    """Settings for the guard that keep it below one cgroup."""
    return f"roots: [{root}]\n{further}"


if __name__ == "__main__":
    sys.exit(main())
