"""Dying memcgs beside live ones that hold page cache, grow and shrink: who takes from whom?"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.drive import IDLE_SEC, Bench, Turn, settled, take_turn
from tests.bench.result import Bar, Result, Side, load
from tests.bench.rivals import (
    DROP_ALL,
    DROP_PAGES,
    GUARD,
    GUARD_UNCAPPED,
    KATALYST,
    NO_GUARD,
    Rival,
)
from tests.demo.host import CannotRun
from tests.lab.leak import PAGE_BYTES, leaked, own_cgroup
from tests.lab.visitor import Visitor, visitor

COUNT = 20_000
HELD_BYTES = 500 << 20  # by all live ones together
STEP_BYTES = 256 << 10
STEP_SEC = 0.05
FEW, MANY = 20, 1_000
NEARLY = 2  # dying memcgs that come and go by themselves


def run_few(bench: Bench) -> Result:
    return run(bench, "live-few", FEW)


def run_many(bench: Bench) -> Result:
    return run(bench, "live-many", bench.count(MANY, least=FEW))


def run(bench: Bench, name: str, siblings: int) -> Result:
    if bench.host.version == 1:
        raise CannotRun("On cgroup v1 nothing can be shielded: this bench is for cgroup v2.")
    before = load()
    count, held = bench.count(COUNT, least=100), bench.count(HELD_BYTES, least=20 << 20)
    dropping: list[Rival] = [DROP_PAGES, DROP_ALL] if bench.ours_alone else []
    rivals: list[Rival] = [NO_GUARD, *dropping, KATALYST, GUARD, GUARD_UNCAPPED]
    sides = {rival.name: one(bench, rival, count, siblings, held) for rival in rivals}
    return Result(
        bench=name,
        about=f"{count} dying memcgs of 4 KiB each beside {held >> 20} MiB of page cache in {siblings} live"
        " siblings that grow and shrink meanwhile",
        size={"count": count, "siblings": siblings, "held_bytes": held},
        sides=list(sides.values()),
        bars=bars(sides),
        load_before=before,
    )


class Herd:
    """Live siblings, each with files of its own."""

    def __init__(self, guest: Visitor, parent: Path, place: Path, siblings: int) -> None:
        self._guest = guest
        self._place = place
        self._cgroups = [parent / f"live-{number}" for number in range(siblings)]
        self._grown: deque[Path] = deque()
        place.mkdir()
        for cgroup in self._cgroups:
            cgroup.mkdir()

    def fill(self, size: int) -> None:
        each = size // len(self._cgroups)
        for cgroup in self._cgroups:
            self._guest.write(cgroup, self._place / cgroup.name, each)

    def stolen_pages(self) -> int:
        """That were reclaimed of them, since they were made."""
        return sum(stat_of(cgroup, "pgsteal") for cgroup in self._cgroups)

    def held_bytes(self) -> int:
        return sum(stat_of(cgroup, "file") for cgroup in self._cgroups)

    @contextmanager
    def moving(self) -> Iterator[None]:
        """One of them grows, or another shrinks, again and again for the length of a block."""
        over = threading.Event()
        thread = threading.Thread(target=self._move, args=(over,))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _move(self, over: threading.Event) -> None:
        chance = random.Random(1)  # the same each time
        number = 0
        while not over.wait(STEP_SEC):
            if len(self._grown) > len(self._cgroups) or (self._grown and chance.random() < 0.5):
                self._grown.popleft().unlink()
                continue
            cgroup = chance.choice(self._cgroups)
            self._grown.append(self._place / f"grown-{number}")
            self._guest.write(cgroup, self._grown[-1], STEP_BYTES)
            number += 1


def stat_of(cgroup: Path, key: str) -> int:
    for line in (cgroup / "memory.stat").read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    raise CannotRun(f"memory.stat has no {key} here.")


def one(bench: Bench, rival: Rival, count: int, siblings: int, held: int) -> Side:
    with bench.field(rival) as on, visitor(own_cgroup(on.parent)) as guest:
        herd = Herd(guest, on.parent, on.place / "herd", siblings)
        herd.fill(held)
        floor = settled(on.parent)
        bench.progress.now(f"{rival.name}: {count} dying memcgs are made")
        with leaked(root=on.parent, work_dir=on.place / "leak", count=count, bytes_each=PAGE_BYTES) as made:
            stolen, held_before = herd.stolen_pages(), herd.held_bytes()
            with herd.moving():
                turn = take_turn(
                    bench,
                    on,
                    rival,
                    floor=floor if rival is not NO_GUARD else -1,
                    still_sec=patience_sec(bench, rival),
                    most_sec=3600 * bench.scale + 60,
                )
            lost, held_after = herd.stolen_pages() - stolen, herd.held_bytes()
        bench.progress.step(f"{rival.name}: {lost} pages taken from live siblings")
        return turn.side(
            rival,
            made_sec=made.seconds,
            pages_taken_from_live=lost,
            live_held_before_mib=held_before >> 20,
            live_held_after_mib=held_after >> 20,
            cpu_per_released_usec=_each(turn),
        )


def patience_sec(bench: Bench, rival: Rival) -> float | None:
    """What has nothing more to do is not waited for as long as the guard, which rests in between."""
    if rival is NO_GUARD:
        return max(IDLE_SEC, 10 * bench.scale)
    if rival in (DROP_PAGES, DROP_ALL):
        return 15.0
    if rival is KATALYST:
        return 60.0
    return 300.0  # beside many siblings one window takes seconds of CPU under emulation


def _each(turn: Turn) -> float | None:
    released = turn.dying_before - turn.dying_after
    return round(turn.cpu_usec / released, 2) if turn.cpu_usec and released > 0 else None


def bars(sides: dict[str, Side]) -> list[Bar]:
    found = []
    for rival in (GUARD, GUARD_UNCAPPED):
        figures = sides[rival.name].figures
        taken = figures["pages_taken_from_live"]
        found.append(
            Bar(
                wanted=f"{rival.name}: no page of a live sibling taken",
                found=f"{taken} pages",
                met=taken == 0,
            )
        )
        if dropped := sides.get(DROP_ALL.name):
            left, best = _number(figures["dying_after"]), _number(dropped.figures["dying_after"])
            found.append(
                Bar(
                    wanted=f"{rival.name}: as much released as {DROP_ALL.name} does",
                    found=f"{left:.0f} left dying, {best:.0f} by it",
                    met=left <= best + NEARLY,
                )
            )
    return found


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return value
