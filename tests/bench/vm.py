"""What `make bench-vm` runs: benches inside virtual machines, on their kernels, by the same program.

The machine is ours alone, so drop_caches takes part. Exits 0 when every bench ran to its end.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tests.bench import again
from tests.bench.__main__ import BENCHES, KEPT, SCRATCH
from tests.bench.meter import YARDSTICK, yardstick_usec
from tests.bench.result import commit
from tests.bench.table import show, write_tables
from tests.demo.interrupt import Interrupted, raise_when_interrupted
from tests.demo.progress import Progress
from tests.vm.image import RigError
from tests.vm.machine import Machine
from tests.vm.ssh import CommandError
from tests.vm.system import PRECISE, System
from tests.vm.test_kernel import WHERE, put_checkout

LOG, OUTPUT = "/var/tmp/bench.log", "/var/tmp/bench"
DEFAULT = ("idle", "big", "removal", "pods", "live-few", "live-many", "again")
AGAIN = "again"
POLL_SEC = 3.0
LARGE = "big"  # wants more memory than tests do
LARGE_MIB = 4096


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments(argv)
    progress = Progress()
    raise_when_interrupted()
    failed = False
    try:
        for system in given.systems:
            for machine, name in machines(system, given.names or DEFAULT, progress):
                if name == AGAIN:
                    result = again.run(machine, progress, given.scale)
                    print(f"\n{show(result)}\n\n{result.write(given.output)}\n", flush=True)
                else:
                    failed |= not inside(machine, name, given.scale, given.output, progress)
    except (RigError, CommandError, TimeoutError, ConnectionError) as error:
        progress.verdict(f"It could not run to its end: {error}", good=False)
        return 1
    except Interrupted as interrupted:
        progress.verdict("Interrupted.", good=False)
        return 128 + interrupted.number
    if given.output == KEPT:
        write_tables(KEPT)
    return 1 if failed else 0


def machines(system: System, names: Sequence[str], progress: Progress) -> Iterator[tuple[Machine, str]]:
    """The benches in turn, each with the machine that it runs in: one for all of them, and a large one."""
    large = [name for name in names if name == LARGE]
    for some, kind in (
        ([name for name in names if name != LARGE], system),
        (large, replace(system, memory_mib=LARGE_MIB)),
    ):
        if some:
            with Machine(kind, told=progress.step) as machine:
                progress.step(f"booted in {machine.boot_seconds:.0f} s")
                for name in some:
                    yield machine, name


def inside(machine: Machine, name: str, scale: float, output: Path, progress: Progress) -> bool:
    """Run one bench there, show what it says, and fetch its result; whether it ran to its end."""
    put_checkout(machine)
    command = [
        *("env", f"LOGINDGUARD_COMMIT={commit()}", "PYTHONDONTWRITEBYTECODE=1"),
        f"{YARDSTICK}={yardstick_usec():.0f}",
        *("python3", "-m", "tests.bench", name, "--drop-caches"),
        *("--scale", f"{scale:g}", "--output", OUTPUT),
    ]
    machine.run(
        f"rm -rf {OUTPUT} {LOG}; touch {LOG}; cd {WHERE}; nohup {shlex.join(command)} >{LOG} 2>&1"
        f" </dev/null & echo $! >{LOG}.pid"
    )
    shown, runs = 0, True
    while runs:
        time.sleep(POLL_SEC)
        runs = machine.run(f"kill -0 $(cat {LOG}.pid)", check=False).status == 0
        text = machine.run(f"tail -c +{shown + 1} {LOG}").stdout
        shown += len(text.encode())
        print(text, end="", flush=True)
    found = machine.run(f"ls {OUTPUT} 2>/dev/null", check=False).stdout.split()
    output.mkdir(parents=True, exist_ok=True)
    for file in found:
        (output / file).write_text(machine.read(f"{OUTPUT}/{file}"))
    if not found:
        progress.verdict(f"{name} on {machine.system.name} left no result.", good=False)
    return bool(found)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    systems = {each.name: each for each in PRECISE}
    abouts = {name: about for name, (_, about) in BENCHES.items()}
    abouts[AGAIN] = "the same login and the same job of cron 100 times; 40 min emulated"
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.bench.vm",
        description=(__doc__ or "").split("\n")[0],
        epilog="\n".join(["benches:", *(f"  {name:<10}{about}" for name, about in abouts.items())]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: {' '.join(DEFAULT)}")
    parser.add_argument("--system", action="append", choices=systems, help="default: all of these")
    parser.add_argument("--scale", type=float, default=1.0, help="of the size that the bars are about")
    parser.add_argument("--output", type=Path, help="where the JSON goes (full size: docs/benchmarks)")
    given = parser.parse_args(argv)
    for name in given.names:
        if name not in abouts:
            parser.error(f"there is no bench {name}")
    chosen: list[System] = [systems[name] for name in given.system or systems]
    given.systems = chosen
    given.output = given.output or (KEPT if given.scale == 1 else SCRATCH)
    return given


if __name__ == "__main__":
    sys.exit(main())
