"""As many dying memcgs as the article's kernel thread cleaned, of one page each."""

from __future__ import annotations

from tests.bench.drive import IDLE_SEC, Bench, Turn, settled, take_turn
from tests.bench.result import Bar, Result, Side, load
from tests.bench.rivals import FORCE_EMPTY, GUARD, GUARD_UNCAPPED, NO_GUARD, Rival
from tests.lab.leak import PAGE_BYTES, leaked

COUNT = 400_000
OTHERS = 50  # cgroups of others that end meanwhile, which v1 counts too
SHARE_MSEC = 20  # in any second: sweep.cpu_percent as it comes


def run(bench: Bench) -> Result:
    count = bench.count(COUNT, least=1000)
    before, sides, turns = load(), [], {}
    for rival in (NO_GUARD, FORCE_EMPTY, GUARD, GUARD_UNCAPPED):
        turn, side = one(bench, rival, count)
        turns[rival.name] = turn
        sides.append(side)
    return Result(
        bench="storm",
        about=f"{count} memcgs of 4 KiB each are left dying, nobody beside them; on a host that reclaims by"
        " itself what is not used (DAMON) some are gone before the turn begins",
        size={"count": count, "bytes_each": PAGE_BYTES},
        sides=sides,
        bars=bars(turns, sides),
        load_before=before,
    )


def one(bench: Bench, rival: Rival, count: int) -> tuple[Turn, Side]:
    with bench.field(rival) as on:
        floor = settled(on.parent)
        bench.progress.now(f"{rival.name}: {count} dying memcgs are made")
        with leaked(root=on.parent, work_dir=on.place / "leak", count=count) as made:
            turn = take_turn(
                bench,
                on,
                rival,
                floor=floor + OTHERS,
                held=lambda: bench.host.held_by_dying_bytes(on.parent),
                still_sec=IDLE_SEC if rival is NO_GUARD else None,
                most_sec=max(15.0, 1800 * bench.scale),
            )
            left_bytes = bench.host.held_by_dying_bytes(on.parent)
        side = turn.side(
            rival,
            made_sec=made.seconds,
            dying_of_others=floor,
            bytes_left=left_bytes,
            cpu_per_released_usec=_each(turn),
        )
    return turn, side


def _each(turn: Turn) -> float | None:
    released = turn.dying_before - turn.dying_after
    return round(turn.cpu_usec / released, 2) if turn.cpu_usec and released > 0 else None


def bars(turns: dict[str, Turn], sides: list[Side]) -> list[Bar]:
    floor, capped, uncapped = turns[FORCE_EMPTY.name], turns[GUARD.name], turns[GUARD_UNCAPPED.name]
    left = {side.rival: side.figures for side in sides}
    cpu, wall = capped.cpu_usec / max(1, floor.cpu_usec), uncapped.wall_sec / max(0.2, floor.wall_sec)
    return [
        *(
            Bar(
                wanted=f"{name}: all released",
                found=f"{turns[name].dying_before} -> {turns[name].dying_after} dying"
                f" ({left[name]['dying_of_others']} of others), {left[name]['bytes_left']} bytes held",
                met=left[name]["bytes_left"] == 0
                and turns[name].dying_after <= _number(left[name]["dying_of_others"]) + OTHERS,
            )
            for name in (GUARD.name, GUARD_UNCAPPED.name)
        ),
        Bar(
            wanted="default cap: the worker has at most 2 % of a CPU in every second",
            found=f"{capped.most_usec / 1000:.1f} ms in the busiest",
            met=capped.most_usec <= SHARE_MSEC * 1000,
        ),
        Bar(
            wanted="default cap: total CPU at most 1.5 x that of one unpaced force_empty",
            found=f"{capped.cpu_usec / 1000:.0f} ms to {floor.cpu_usec / 1000:.0f} ms, {cpu:.2f} x",
            met=cpu <= 1.5,
        ),
        Bar(
            wanted="cap 100 %: wall at most 2 x that of one unpaced force_empty",
            found=f"{uncapped.wall_sec:.1f} s to {floor.wall_sec:.1f} s, {wall:.2f} x",
            met=wall <= 2,
        ),
    ]


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return value
