"""status: the mode, what is dying and where, what was done; check: the same as an exit status."""

from __future__ import annotations

from collections import Counter
from contextlib import closing

from ... import __version__
from ...text import counted, printable, size, span
from .. import local
from ..client import Record
from ..context import Context
from ..exits import Exit
from ..journalctl import journalctl
from ..output import Output
from ..records import most_dying_first, shown_residue, with_user
from ..table import Column, table
from ..terminal import Colour, Terminal, ellipsize
from ..times import ago, stamp

JOURNAL_SEC = 5.0
LABEL_WIDTH = 11
MOST_RESIDUES = 5
JOURNAL_LINES = 10
THRESHOLD = 2000
_WAYS = ("before", "after", "sweep")


async def run(context: Context) -> Exit:
    found = await _read(context)
    out = context.out
    if out.as_json:
        out.json(found)
        return Exit.OK
    for line in _lines(found, out, context.now_usec):
        out.line(line)
    lines = JOURNAL_LINES if context.options.number is None else context.options.number
    if journal := await _journal(context, lines):
        out.line()
        for line in journal:
            out.line(line)
    return Exit.OK


async def check(context: Context) -> Exit:
    """Whether no more memcgs are dying than --threshold= says."""
    threshold = THRESHOLD if context.options.threshold is None else context.options.threshold
    with closing(await context.service()) as service:
        dying = int(await service.property("DyingCount"))
    well = dying <= threshold
    if context.out.as_json:
        context.out.json({"dying_count": dying, "threshold": threshold, "well": well})
    else:
        relation = "not above" if well else "above"
        context.out.result(f"{counted(dying, 'dying memcg')}, {relation} the threshold of {threshold}.")
    return Exit.OK if well else Exit.NEGATIVE


async def _read(context: Context) -> Record:
    """The properties of the service, or the few of them that the kernel tells, and the residues."""
    service = await context.service_or_say()
    if service is not None:
        with closing(service):
            [statistics] = await service.call("GetStatistics")
            waits = statistics.get("sweep_paused", "")
            found = {"source": "service", **await service.properties(), "sweep_paused": waits}
            rows = await service.residues()
    else:
        host = local.host(context.world.roots)
        rows = local.residues(host)
        found = {
            "source": "kernel",
            "version": __version__,
            "mode": str(host.mode),
            "mode_reason": host.backend.reason,
            "cgroup_version": host.hierarchy.version,
            "kernel_features": list(host.features.words()),
            "dying_count": local.total_dying(host),
            "residue_bytes": sum(row["file_bytes"] for row in rows),
        }
    totals = [
        {"way": way, "outcome": outcome, "count": count}
        for way, outcome, count in found.pop("reclaims_total", [])
    ]
    rows = [with_user(row) for row in most_dying_first(rows)]
    return found | ({"reclaims_total": totals} if totals else {}) | {"residues": rows}


def _lines(found: Record, out: Output, now_usec: int) -> list[str]:
    running = found["source"] == "service"
    bullet = ("●" if running else "○", _colour(found) if running else None)
    lines = [
        f"{out.paint(*bullet)} logindguard {found['version']} - release of page cache "
        "that dying memory cgroups hold"
    ]

    def say(label: str, text: str, colour: Colour | None = None) -> None:
        room = None if out.full or out.terminal.columns is None else out.terminal.columns - LABEL_WIDTH - 2
        shown = text if room is None else ellipsize(text, room)
        lines.append(f"{label:>{LABEL_WIDTH}}{':' if label else ' '} {out.paint(shown, colour)}")

    mode = f"{found['mode']} ({found['mode_reason']})"
    say("Mode", mode if running else f"not running; it would be {mode}", _colour(found) if running else None)
    if running:
        say("Service", _service(found))
    say("Dying", f"{counted(found['dying_count'], 'memcg')}, {size(found['residue_bytes'])} of page cache")
    for line in _residues(found["residues"], out.terminal, now_usec, full=out.full):
        lines.append(" " * (LABEL_WIDTH + 2) + line)
    if running:
        for label, text in _totals(found, now_usec):
            say(label, text)
    return lines


def _service(found: Record) -> str:
    if found.get("paused"):
        return str(found.get("pause_reason") or "paused")
    if found.get("sweep_paused"):
        return f"active; the sweep waits: {found['sweep_paused']}"
    return "active"


def _colour(found: Record) -> Colour:
    return Colour.YELLOW if found.get("paused") or found["mode"] == "observe" else Colour.GREEN


def _residues(rows: list[Record], terminal: Terminal, now_usec: int, *, full: bool) -> list[str]:
    columns = (
        Column("", shrink=28, keep_end=True),
        Column("", right=True),
        Column("", right=True),
        Column("", shrink=16, nothing=""),
    )
    shown = rows[:MOST_RESIDUES]
    cells = [
        (
            shown_residue(row) + (f" ({printable(row['user'])})" if "user" in row else ""),
            str(row.get("dying", "")),
            size(row.get("file_bytes", 0)),
            _outlook(row, now_usec),
        )
        for row in shown
    ]
    room = None if terminal.columns is None else terminal.columns - LABEL_WIDTH - 2
    narrower = Terminal(columns=room, colour=terminal.colour, interactive=terminal.interactive)
    lines = table(columns, cells, narrower, legend=False, full=full) if cells else []
    if len(rows) > len(shown):
        lines.append(f"… and under {counted(len(rows) - len(shown), 'other cgroup')}, see 'list'")
    return lines


def _outlook(row: Record, now_usec: int) -> str:
    reason = printable(row.get("reason", ""))
    if not row.get("next_usec"):
        return reason
    again = f"next try {ago(row['next_usec'], now_usec)}" if row["next_usec"] > now_usec else "due"
    return f"{reason}, {again}" if reason else again


def _totals(found: Record, now_usec: int) -> list[tuple[str, str]]:
    swept_usec = found.get("last_sweep_timestamp", 0)
    last_sweep = "none yet"
    if swept_usec:
        took = span(found.get("last_sweep_usec", 0))
        last_sweep = f"{stamp(swept_usec)}; {ago(swept_usec, now_usec)}, took {took}"
    by_way: Counter[str] = Counter()
    for total in found.get("reclaims_total", []):
        by_way[total["way"]] += total["count"]
    ways = ", ".join(f"{by_way[way]} {_words(way)}" for way in _WAYS if by_way[way])
    reclaims = f"{by_way.total()} ({ways})" if ways else str(by_way.total())
    stolen = counted(found.get("stolen_pages_total", 0), "page")
    released = size(found.get("reclaimed_bytes_total", 0))
    totals = [
        ("Last sweep", last_sweep),
        ("Teardowns", str(found.get("teardowns_total", 0))),
        ("Reclaims", reclaims),
        ("Released", f"{released} of page cache, {stolen} taken from live cgroups"),
    ]
    if files := found.get("config_files"):
        totals.append(("Settings", ", ".join(printable(file) for file in files)))
    return totals


def _words(way: str) -> str:
    return {"before": "before the removal", "after": "after it", "sweep": "by the sweep"}[way]


async def _journal(context: Context, lines: int) -> list[str]:
    """The last lines of the service, in colour where ours are; none where journalctl gives none."""
    if lines == 0:
        return []
    colour = str(int(context.out.terminal.colour))
    found = await journalctl(
        *("--output=short", f"--lines={lines}", "--unit=logindguard.service"),
        environment={**context.world.environment, "SYSTEMD_COLORS": colour},
        max_sec=JOURNAL_SEC,
    )
    columns = context.out.terminal.columns
    if columns is None or context.out.full or context.out.terminal.colour:
        return found
    return [ellipsize(line, columns) for line in found]
