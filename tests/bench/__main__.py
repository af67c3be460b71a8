"""What `make bench` runs: the guard beside its rivals, on this machine's own kernel.

All happens below a cgroup and in a directory made for it, and both are removed at the end, also after
SIGTERM. Exits 0 when every bench ran to its end, whether its bars were met or not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.bench import big, idle, live, logins, pods, removal, storm
from tests.bench.drive import Bench
from tests.bench.result import CHECKOUT, Result
from tests.bench.table import show, write_tables
from tests.demo.guard import GuardFailed
from tests.demo.host import CannotRun, own_place
from tests.demo.interrupt import Interrupted, raise_when_interrupted
from tests.demo.progress import Progress
from tests.lab.leak import Refusal

KEPT = CHECKOUT / "docs" / "benchmarks"
SCRATCH = CHECKOUT / "build" / "bench"
# What each is about, and how long it takes on two idle CPUs.
BENCHES: Mapping[str, tuple[Callable[[Bench], Result], str]] = {
    "storm": (storm.run, "400,000 dying memcgs of one page each; 15 min"),
    "big": (big.run, "one dying memcg of 20 GB beside a process that wakes up every ms; 8 min"),
    "logins": (logins.run, "10,000 simulated logins, 1,000 a minute; 10 min"),
    "live-few": (live.run_few, "20,000 dying beside 20 live ones with 500 MB (cgroup v2); 30 min emulated"),
    "live-many": (live.run_many, "the same beside 1,000 (cgroup v2); 45 min emulated"),
    "removal": (removal.run, "40 parents that are removed while they are reclaimed; 4 min, 10 min emulated"),
    "pods": (pods.run, "100 pods, 10 replaced a second for 5 min (cgroup v2); 20 min"),
    "idle": (idle.run, "2,000 live ones and nothing dying (cgroup v2); 2 min"),
}

NATIVE = ("storm", "big", "logins", "removal")


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments(argv)
    progress = Progress()
    raise_when_interrupted()
    failures = []
    for name in given.names or NATIVE:
        run, about = BENCHES[name]
        progress.step(f"{name}: {about}" + (f", at {given.scale:g} of its size" if given.scale != 1 else ""))
        try:
            with own_place() as host:
                result = run(
                    Bench(host=host, progress=progress, scale=given.scale, ours_alone=given.drop_caches)
                )
        except (CannotRun, Refusal, GuardFailed, OSError, RuntimeError) as error:
            progress.verdict(f"{name} could not run to its end: {error}", good=False)
            failures.append(name)
        except Interrupted as interrupted:
            progress.verdict("Interrupted; what was made has been removed.", good=False)
            return 128 + interrupted.number
        else:
            path = result.write(given.output)
            print(f"\n{show(result)}\n\n{path}\n", flush=True)
    if given.output == KEPT:
        write_tables(KEPT)
    return 1 if failures else 0


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.bench",
        description=(__doc__ or "").split("\n")[0],
        epilog="\n".join(["benches:", *(f"  {name:<10}{about}" for name, (_, about) in BENCHES.items())]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names", nargs="*", choices=[[], *BENCHES], metavar="NAME", help=f"default: {' '.join(NATIVE)}"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="of the size that the bars are about")
    parser.add_argument("--output", type=Path, help="where the JSON goes (full size: docs/benchmarks)")
    parser.add_argument(
        "--drop-caches",
        action="store_true",
        help="drop_caches as a rival: it takes the page cache of the whole machine",
    )
    given = parser.parse_args(argv)
    given.output = given.output or (KEPT if given.scale == 1 else SCRATCH)
    return given


if __name__ == "__main__":
    sys.exit(main())
