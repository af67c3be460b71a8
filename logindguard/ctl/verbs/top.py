"""top: what is dying, by slice, drawn again and again."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

from ...owners import slice_of
from ...text import counted, size, span
from ..client import Record, Service
from ..context import Context
from ..exits import Exit, Failure
from ..records import shown_path
from ..screen import Screen
from ..table import Cell, Column, Row, table
from ..terminal import Colour, Terminal, ellipsize, size_of
from ..times import SEC, parse_duration

DELAY_USEC = 2 * SEC
LEAST_DELAY_USEC = 100_000
REMEMBERED = 64  # rounds, one column each
_BLOCKS = "▁▂▃▄▅▆▇█"
_ORDERS = {"d": "dying", "c": "cache", "p": "path"}
_KEYS = "q quit  space refresh  d dying  c cache  p path  +/- delay"


@dataclass(slots=True)
class Slice:
    """`past` holds one value a round: dying memcgs, or bytes where those are not counted by cgroup (v1)."""

    path: str
    dying: int | None = None
    cache_bytes: int = 0
    past: deque[int] = field(default_factory=lambda: deque(maxlen=REMEMBERED))


@dataclass(slots=True)
class View:
    """All that one picture is drawn from."""

    delay_usec: int
    order: str = "dying"
    slices: dict[str, Slice] = field(default_factory=dict)
    total: int = 0
    cache_bytes: int = 0
    mode: str = ""
    paused: bool = False
    released_bytes: int = 0
    rounds: int = 0

    def take(self, properties: Record, rows: list[Record]) -> None:
        """One more round; a slice that has nothing dying any more stays for as long as it is remembered."""
        self.rounds += 1
        self.mode = str(properties.get("mode", ""))
        self.paused = bool(properties.get("paused", False))
        self.released_bytes = properties.get("reclaimed_bytes_total", 0)
        self.total = properties.get("dying_count", 0)
        self.cache_bytes = properties.get("residue_bytes", 0)
        for known in self.slices.values():
            known.dying, known.cache_bytes = None if known.dying is None else 0, 0
        for row in rows:
            path = slice_of(row["path"])
            found = self.slices.setdefault(path, Slice(path))
            if "dying" in row:
                found.dying = (found.dying or 0) + row["dying"]
            found.cache_bytes += row.get("file_bytes", 0)
        for known in list(self.slices.values()):
            known.past.append(known.cache_bytes if known.dying is None else known.dying)
            if not any(known.past):
                del self.slices[known.path]

    def sorted(self) -> list[Slice]:
        by = {
            "dying": lambda found: (-(found.dying or 0), -found.cache_bytes, found.path),
            "cache": lambda found: (-found.cache_bytes, found.path),
            "path": lambda found: (found.path,),
        }
        return sorted(self.slices.values(), key=by[self.order])


async def run(context: Context) -> Exit:
    options = context.options
    view = View(delay_usec=_delay(options.delay))
    batch = options.batch or context.out.as_json or not context.out.terminal.interactive
    rounds = options.number
    if rounds is None and batch and not options.batch:
        rounds = 1  # what a script wants, as in systemd-cgtop
    with closing(await context.service()) as service, ExitStack() as stack:
        screen = None if batch else stack.enter_context(Screen(context.world.stdin, context.world.stdout))
        while rounds is None or view.rounds < rounds:
            view.take(await service.properties(), await service.residues())
            if not await _round(context, service, view, screen, last=view.rounds == rounds):
                break
    return Exit.OK


def _delay(written: str | None) -> int:
    if written is None:
        return DELAY_USEC
    try:
        delay_usec = parse_duration(written)
    except ValueError as error:
        raise Failure(f"--delay= expects a duration such as '2s', not '{written}'.", Exit.USAGE) from error
    if delay_usec < LEAST_DELAY_USEC:
        raise Failure("--delay= must be at least 100ms.", Exit.USAGE)
    return delay_usec


async def _round(
    context: Context, service: Service, view: View, screen: Screen | None, *, last: bool
) -> bool:
    """Show it and wait for the next; False when that is the end."""
    if screen is None:
        _print(context, view, first=view.rounds == 1)
        if not last:
            await asyncio.sleep(view.delay_usec / SEC)
        return True
    deadline = time.monotonic() + view.delay_usec / SEC
    while True:
        columns, lines = size_of(context.world.stdout, {})
        terminal = Terminal(columns=columns, colour=context.out.terminal.colour, interactive=True)
        screen.draw(picture(view, terminal, lines, context.now_usec))
        if last:
            return True
        key = await screen.key(max(0.0, deadline - time.monotonic()))
        match key:
            case None | " ":
                return True
            case "q" | "\x1b" | "\x04" | Screen.HUNG_UP:
                return False
            case "+":
                view.delay_usec += SEC
            case "-":
                view.delay_usec = max(LEAST_DELAY_USEC, view.delay_usec - SEC)
            case _ if key in _ORDERS:
                view.order = _ORDERS[key]
            case _:
                pass  # drawn again: the window may have changed its size


def sparkline(values: list[int], columns: int, highest: int) -> str:
    """One block a value, the newest at the right; nothing is a blank."""
    shown = values[-columns:]
    blocks = [" " if value == 0 else _BLOCKS[(value * len(_BLOCKS) - 1) // highest] for value in shown]
    return "".join(blocks).rjust(columns)


def picture(view: View, terminal: Terminal, lines: int, now_usec: int) -> list[str]:
    """One line less than the screen has, at most, and none longer than it is wide."""
    assert terminal.columns is not None
    clock = time.strftime("%H:%M:%S", time.localtime(now_usec / SEC))
    state = "paused" if view.paused else view.mode
    head = (
        f"logindguard {state} - {clock} - {counted(view.total, 'dying memcg')}, "
        f"{size(view.cache_bytes)} held, {size(view.released_bytes)} released - every {span(view.delay_usec)}"
    )
    room = max(1, lines - 7)
    slices = view.sorted()
    history = min(REMEMBERED, max(8, terminal.columns - 48))
    columns = (
        Column("SLICE", shrink=20, keep_end=True),
        Column("DYING", right=True),
        Column("CHANGE", right=True),
        Column("CACHE", right=True),
        Column("HISTORY".rjust(history)),
    )
    rows = [_row(found, history) for found in slices[:room]]
    body = table(columns, rows, terminal) if rows else [terminal.paint("Nothing is dying.", Colour.GREEN)]
    more = f"{len(slices) - room} more slices do not fit." if len(slices) > room else ""
    return [
        terminal.paint(ellipsize(head, terminal.columns), Colour.BOLD),
        "",
        *body,
        *([more] if more else []),
        "",
        terminal.paint(ellipsize(_KEYS, terminal.columns), Colour.GREY),
    ][: lines - 1]


def _row(found: Slice, history: int) -> Row:
    past = list(found.past)
    change = past[-1] - past[-2] if len(past) > 1 else 0
    colour = Colour.RED if change > 0 else Colour.GREEN
    amount = size(abs(change)) if found.dying is None else str(abs(change))
    return (
        shown_path(found.path),
        "" if found.dying is None else str(found.dying),
        Cell(f"{'+' if change > 0 else '-'}{amount}", colour) if change else "",
        size(found.cache_bytes) if found.cache_bytes else "",
        Cell(sparkline(past, history, max(past)), Colour.BLUE),
    )


def _print(context: Context, view: View, *, first: bool) -> None:
    """One round for a file or a program."""
    out = context.out
    slices = view.sorted()
    if out.as_json:
        rows = [
            {
                "slice": found.path,
                **({} if found.dying is None else {"dying": found.dying}),
                "cache_bytes": found.cache_bytes,
            }
            for found in slices
        ]
        out.json({"realtime_usec": context.now_usec, "dying_count": view.total, "slices": rows})
    else:
        if not first:
            out.line()
        columns = (
            Column("SLICE", shrink=20, keep_end=True),
            Column("DYING", right=True),
            Column("CHANGE", right=True),
            Column("CACHE", right=True),
        )
        out.table(columns, [_row(found, 0)[:4] for found in slices], "slice")
    out.flush()
