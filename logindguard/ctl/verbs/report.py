"""report: a stretch of time, on the terminal or as one page to pass on."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from ...model import Sample, Way
from ...owners import By
from ...record.history import HistoryUnavailable
from ...report import OWNERS, Books, Report
from ...text import counted, size, span
from .. import now, owners, past
from ..chart import chart
from ..client import Record
from ..context import Context
from ..exits import Exit, Failure
from ..report_page import WAYS, page
from ..table import table
from ..terminal import Colour, ellipsize
from ..times import SEC, short_time, stamp

DEFAULT_USEC = 7 * 86_400 * SEC
CHART_LINES = 8
WIDEST_CHART = 120
MOST_SHOWN = 5  # owners, on the terminal
LABEL_COLUMNS = 10  # of a chart's axis, at most
NO_SAMPLES = (
    "No samples in this time: the service tells one every 15 minutes (metrics.sample), for root to read."
)


async def run(context: Context) -> Exit:
    out = context.out
    end_usec = context.now_usec
    begin_usec = context.time("since") or end_usec - DEFAULT_USEC
    if begin_usec >= end_usec:
        raise Failure("--since= must be before now.", Exit.USAGE)
    books = Books(owners.timers(context.world.roots))
    await past.book(context, begin_usec, books.book, lambda history, since: history.each(since))
    present = await now.read(context)
    report = books.close(
        await _samples(context, begin_usec),
        begin_usec=begin_usec,
        end_usec=end_usec,
        dying=present.dying,
        reasons=present.reasons,
        residue_bytes=present.residue_bytes,
    )
    if context.options.html:
        _write(Path(context.options.html), page(report, os.uname().nodename))
        out.result(f"The report is in {context.options.html}.")
    elif out.as_json:
        out.json(_record(report))
    else:
        for line in _lines(context, report):
            out.line(line)
    return Exit.OK


async def _samples(context: Context, begin_usec: int) -> list[Sample]:
    if context.world.history is None:
        return []
    try:
        return await asyncio.to_thread(context.world.history.samples, since_usec=begin_usec)
    except HistoryUnavailable:  # said already, with the records
        return []


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}.", Exit.OUTPUT) from error


def _record(report: Report) -> Record:
    totals = report.totals
    return {
        "since_usec": report.begin_usec,
        "until_usec": report.end_usec,
        "dying_count": report.dying,
        "residue_bytes": report.residue_bytes,
        "teardowns": report.teardowns,
        "freed_bytes": totals.freed_bytes,
        "stolen_pages": totals.stolen_pages,
        "cpu_usec": totals.cpu_usec,
        "longest_write_usec": totals.longest_write_usec,
        "reclaims": [
            {"way": str(way), "outcome": str(outcome), "count": count}
            for way, outcome, count in totals.by_way_and_outcome()
        ],
        "owners": {
            str(by): [owners.to_row(by, owner, account) for owner, account in report.owners[by]]
            for by in OWNERS
        },
        "samples": [asdict(sample) for sample in report.samples],
    }


def _lines(context: Context, report: Report) -> list[str]:
    out = context.out
    columns = out.terminal.columns or 80

    def cut(line: str) -> str:
        return line if out.full else ellipsize(line, columns)

    head = f"logindguard - {stamp(report.begin_usec)} to {stamp(report.end_usec)}"
    return [
        out.paint(cut(head), Colour.BOLD),
        "",
        *_charts(context, report, min(WIDEST_CHART, columns - LABEL_COLUMNS)),
        *(cut(line) for line in summary(report)),
        *_owners(context, report),
    ]


def _charts(context: Context, report: Report, columns: int) -> list[str]:
    if not report.samples:
        return [NO_SAMPLES, ""]
    begin, end = (short_time(usec, report.end_usec) for usec in (report.begin_usec, report.end_usec))
    titles = (
        (f"Dying memcgs, {report.dying} now", lambda sample: sample.dying, str),
        (
            f"Page cache that they hold, {size(report.residue_bytes)} now",
            lambda sample: sample.residue_bytes,
            size,
        ),
    )

    def paint(bars: str) -> str:
        return context.out.paint(bars, Colour.BLUE)

    lines: list[str] = []
    for title, value, show in titles:
        drawn = chart(report.course(value, columns), CHART_LINES, show, begin, end, paint)
        lines += [context.out.paint(title, Colour.BOLD), *drawn, ""]
    return lines


def summary(report: Report) -> list[str]:
    """What was done, in four lines."""
    totals = report.totals
    by_way: Counter[Way] = Counter()
    for way, _, count in totals.by_way_and_outcome():
        by_way[way] += count
    ways = ", ".join(f"{by_way[way]} {words}" for way, words in WAYS.items() if by_way[way])
    triggers = ", ".join(
        f"{count} {trigger or 'not known'}" for trigger, count in totals.teardowns.most_common() if count
    )
    return [
        f" Teardowns: {report.teardowns}{f' ({triggers})' if triggers else ''}",
        f"  Reclaims: {by_way.total()}{f' ({ways})' if ways else ''}",
        f"  Released: {size(totals.freed_bytes)} of page cache, "
        f"{counted(totals.stolen_pages, 'page')} taken from live cgroups",
        f"      Cost: {span(totals.cpu_usec)} of CPU time, longest write {span(totals.longest_write_usec)}",
    ]


def _owners(context: Context, report: Report) -> list[str]:
    out = context.out
    lines: list[str] = []
    estimates = False
    for by in (By.USER, By.TRIGGER):
        rows = [owners.to_row(by, owner, account) for owner, account in report.owners[by][:MOST_SHOWN]]
        if rows:
            cells = [owners.cells(by, row, context.now_usec) for row in rows]
            lines += ["", *table(owners.columns(by), cells, out.terminal, legend=True, full=out.full)]
            estimates |= any(row["estimate"] for row in rows)
    if estimates and out.legend:
        lines += ["", owners.ESTIMATE]
    return lines
