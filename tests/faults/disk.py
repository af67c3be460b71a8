#!/usr/bin/python3
"""What a disk that is full, or became read-only, does to what the guard keeps; in a mount namespace.

    unshare --mount python3 -m tests.faults.disk DIRECTORY

Prints a JSON object of what each attempt came to.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from logindguard.kernel.ledger import LedgerError
from logindguard.kernel.shield import Shield, restore
from logindguard.pause import Pause, PauseError
from logindguard.record.textfile import replace_text
from tests.faults.ground import CHILDREN, PARENT, Ground, ground_in
from tests.faults.kernfs import kernfs

SIZE_KIB = 64


def outcome(work: Callable[[], object]) -> str:
    try:
        return str(work())
    except (LedgerError, PauseError, OSError) as error:
        return f"{type(error).__name__}: {error}"


def values(ground: Ground) -> list[str]:
    return [ground.tree.memory_min(path) for path in CHILDREN]


def window(ground: Ground, *, killed: bool = False) -> str:
    def open_one() -> str:
        with ground.tree.hierarchy.open(PARENT) as target:
            shield = Shield(ground.ledger, target, recursiveprot=True, margin_bytes=64 << 20)
            if killed:
                shield.raise_()
            else:
                with shield:
                    shield.raise_()
        return "opened"

    return outcome(open_one)


def attempts(ground: Ground, pause: Pause, textfile: Path) -> dict[str, object]:
    return {
        "window": window(ground),
        "pause": outcome(lambda: pause.pause(3_600_000_000, 0)),
        "paused": pause.reason,
        "textfile": outcome(lambda: replace_text(textfile, "x" * 4096 * SIZE_KIB)),
        "metrics": textfile.read_text(),
        "restore": outcome(lambda: restore(ground.tree.hierarchy, ground.ledger)),
        "values": values(ground),
        "left": sorted(path.name for path in textfile.parent.iterdir()),
    }


def fill(filler: Path) -> None:
    with filler.open("ab", buffering=0) as file:
        outcome(lambda: [file.write(b"x" * 4096) for _ in range(SIZE_KIB)])


def main() -> int:
    directory = Path(sys.argv[1])
    disk = directory / "run"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_KIB}k,mode=700", "none", disk], check=True)
    (disk / "metrics").mkdir()
    textfile = disk / "metrics/guard.prom"
    replace_text(textfile, "old")
    told: dict[str, object] = {}
    with kernfs():
        ground = ground_in(directory)  # whose ledger is on that disk
        ground.fill()
        pause = Pause(disk)
        own = values(ground)
        window(ground, killed=True)
        ledger = ground.ledger.path.read_text()
        filler = disk / "filler"
        fill(filler)
        told["full, after a kill"] = outcome(lambda: restore(ground.tree.hierarchy, ground.ledger))
        fill(filler)  # the ledger, which is gone, had room for another one
        told["full"] = attempts(ground, pause, textfile)
        filler.unlink()
        window(ground, killed=True)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        told["read-only, after a kill"] = outcome(lambda: restore(ground.tree.hierarchy, ground.ledger))
        told["read-only"] = attempts(ground, pause, textfile)
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        told["in the end"] = outcome(lambda: restore(ground.tree.hierarchy, ground.ledger))
        told["window in the end"] = window(ground)
        told["own"] = own
        told["values in the end"] = values(ground)
        told["ledger"] = len(json.loads(ledger))
    print(json.dumps(told, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
