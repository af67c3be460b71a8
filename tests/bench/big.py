"""One dying memcg as large as the machine allows, and a process that wants to be woken on time."""

from __future__ import annotations

from dataclasses import replace

from tests.bench.drive import IDLE_SEC, Bench, settled, take_turn
from tests.bench.result import Bar, Result, Side, load
from tests.bench.rivals import (
    DROP_PAGES,
    FORCE_EMPTY,
    GUARD,
    GUARD_UNCAPPED,
    NO_GUARD,
    Rival,
    Writes,
)
from tests.demo.host import available_bytes
from tests.lab.leak import own_cgroup
from tests.lab.visitor import visitor
from tests.lab.wakeup_probe import wakeups

BYTES = 20_000_000_000
BYTES_EMULATED = 2_000_000_000  # in a virtual machine
LEFT_BYTES = 3 << 30  # for everything else, on a large machine
OTHERS = 50
QUIET_SEC = 30.0  # without reclaim


def run(bench: Bench) -> Result:
    room = available_bytes()
    wanted = bench.count(BYTES if bench.host.version == 1 else BYTES_EMULATED)
    size = min(wanted, room - min(LEFT_BYTES, room // 3))
    size -= size % (1 << 20)
    before = load()
    sides = {rival.name: one(bench, rival, size) for rival in rivals(bench)}
    return Result(
        bench="big",
        about=f"one dying memcg of {size / 1e9:.1f} GB (a sparse file's page cache), and a process that"
        " sleeps for 1 ms again and again beside its reclaim",
        size={"bytes": size},
        sides=list(sides.values()),
        bars=bars(sides),
        load_before=before,
    )


def rivals(bench: Bench) -> list[Rival]:
    whole: Rival = FORCE_EMPTY
    if bench.host.version == 2:
        whole = Writes(name="one memory.reclaim of all", file="memory.reclaim", value="100G")
    dropping: list[Rival] = [DROP_PAGES] if bench.ours_alone else []
    return [
        *(NO_GUARD, whole, *dropping, GUARD, GUARD_UNCAPPED),
        # The machine may have changed meanwhile: what is compared with is measured at both ends.
        replace(NO_GUARD, name="no guard, again"),
    ]


def one(bench: Bench, rival: Rival, size: int) -> Side:
    with bench.field(rival) as on:
        floor = settled(on.parent)
        dead = on.parent / "large"
        dead.mkdir()
        file = on.place / "sparse"
        with file.open("wb") as opened:
            opened.truncate(size)
        with visitor(own_cgroup(on.parent)) as guest:
            guest.read(dead, file, 0, size)
        dead.rmdir()
        held_before = bench.host.held_by_dying_bytes(on.parent)
        with wakeups() as probe:
            turn = take_turn(
                bench,
                on,
                rival,
                floor=floor + OTHERS if not rival.name.startswith("no guard") else -1,
                held=lambda: bench.host.held_by_dying_bytes(on.parent),
                still_sec=max(IDLE_SEC, QUIET_SEC * bench.scale)
                if rival.name.startswith("no guard")
                else 1200,
                most_sec=max(5.0, 1200 * bench.scale),
            )
            late = probe.late_usec(turn.span_nsec)
        left = bench.host.held_by_dying_bytes(on.parent)
        file.unlink()
        bench.progress.step(
            f"{rival.name}: woken {late['p999']} us late (p99.9), {late['longest']} us at most"
        )
        return turn.side(
            rival,
            held_before_mib=held_before >> 20,
            held_after_mib=left >> 20,
            wakeups=late["times"],
            late_median_usec=late["median"],
            late_p99_usec=late["p99"],
            late_p999_usec=late["p999"],
            late_longest_usec=late["longest"],
        )


def bars(sides: dict[str, Side]) -> list[Bar]:
    quiet = max(
        _number(side.figures["late_p999_usec"]) for name, side in sides.items() if name.startswith("no guard")
    )
    late = _number(sides[GUARD.name].figures["late_p999_usec"])
    found = [
        Bar(
            wanted=f"{GUARD.name}: p99.9 lateness at most 1.1 x of the run without reclaim",
            found=f"{late:.0f} to {quiet:.0f} us, {late / max(1, quiet):.2f} x",
            met=late <= 1.1 * quiet,
        )
    ]
    for rival in (GUARD, GUARD_UNCAPPED):
        figures = sides[rival.name].figures
        found += [
            Bar(
                wanted=f"{rival.name}: all released",
                found=f"{figures['held_before_mib']} -> {figures['held_after_mib']} MiB",
                met=figures["held_after_mib"] == 0,
            ),
        ]
    return found


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return value
