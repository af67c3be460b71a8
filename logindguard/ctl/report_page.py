"""A report as one page that needs nothing else: no script, no font, no picture from anywhere.

Light or dark as the reader's system is, from the width of a phone on. All text is escaped: units and
users are named by others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape

from .. import __version__
from ..model import Sample, Way
from ..owners import By
from ..report import OWNERS, Course, Report
from ..text import printable, size, span
from . import owners
from .table import Cell
from .times import short_time, stamp

WAYS = {Way.BEFORE: "before the removal", Way.AFTER: "after the removal", Way.SWEEP: "by the sweep"}
PARTS = 168  # of the time in a chart: an hour each, of a week
WIDTH, HEIGHT = 1000, 220  # of a chart, in units of its own

_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --card: #f6f7f9; --line: #d8dce2; --ink: #1b1f24;
  --soft: #5c6570; --accent: #0b6bcb; --area: #0b6bcb26; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171b; --card: #1d2126; --line: #343b44;
  --ink: #e6e9ed; --soft: #9aa4af; --accent: #6db3ff; --area: #6db3ff2e; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.25rem; max-width: 68rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
header p, footer, .note { color: var(--soft); margin: .25rem 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(7.4rem, 1fr)); gap: .75rem;
  margin: 1.25rem 0 0; padding: 0; }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .6rem .8rem; }
.tiles dt { color: var(--soft); font-size: .85rem; } .tiles dd { margin: 0; font-size: 1.4rem; }
figure { margin: 0; display: grid; grid-template-columns: auto 1fr; column-gap: .5rem; }
svg { width: 100%; height: 11rem; display: block; background: var(--card); border: 1px solid var(--line); }
.reach { display: flex; flex-direction: column; justify-content: space-between; text-align: right; }
.reach, .ends { color: var(--soft); font-size: .8rem; font-variant-numeric: tabular-nums; }
.ends { grid-column: 2; display: flex; justify-content: space-between; }
.grid { stroke: var(--line); } .area { fill: var(--area); }
.course { fill: none; stroke: var(--accent); stroke-width: 2; }
.grid, .course { vector-effect: non-scaling-stroke; }
.hover { fill: transparent; } .hover:hover { fill: var(--area); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; font-size: .85rem; }
th:first-child, td:first-child, .words { text-align: left; }
td.words { white-space: normal; min-width: 8rem; }
footer { margin-top: 2.5rem; font-size: .85rem; }
"""


def page(report: Report, host: str) -> str:
    """A whole document."""
    name = escape(printable(host))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Dying memory cgroups on {name}</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>Dying memory cgroups on {name}</h1>
<p>{escape(stamp(report.begin_usec))} to {escape(stamp(report.end_usec))}</p>
</header>
{_tiles(report)}
{_chart(report, "Dying memcgs", lambda sample: sample.dying, str)}
{_chart(report, "Page cache that they hold", lambda sample: sample.residue_bytes, size)}
{"".join(_owners(report, by) for by in OWNERS)}
{_reclaims(report)}
<footer>logindguard {escape(__version__)}. {escape(owners.ESTIMATE)}</footer>
</body>
</html>
"""


def _tiles(report: Report) -> str:
    totals = report.totals
    tiles = {
        "Dying now": str(report.dying),
        "Page cache held": size(report.residue_bytes),
        "Teardowns": str(report.teardowns),
        "Reclaims": str(sum(totals.reclaims.values())),
        "Released": size(totals.freed_bytes),
        "Live pages taken": str(totals.stolen_pages),
        "CPU time": span(totals.cpu_usec),
        "Longest write": span(totals.longest_write_usec),
    }
    shown = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in tiles.items()
    )
    return f'<dl class="tiles">{shown}</dl>'


def _chart(report: Report, title: str, value: Callable[[Sample], float], show: Callable[[int], str]) -> str:
    heading = f"<h2>{escape(title)}</h2>"
    course = report.course(value, PARTS)
    known = [each for each in course if each is not None]
    if not known:
        return f'{heading}<p class="note">There are no samples of this time.</p>'
    highest = max(max(known), 1)
    told = f"{title}: highest {show(int(max(known)))}, last {show(int(known[-1]))}"
    lines = "".join(f'<path class="grid" d="M0 {HEIGHT * at // 4}H{WIDTH}"/>' for at in (1, 2, 3))
    runs = "".join(_run(run, highest) for run in _runs(course))
    begin, end = (escape(short_time(usec, report.end_usec)) for usec in (report.begin_usec, report.end_usec))
    return f"""{heading}
<figure>
<div class="reach"><span>{escape(show(int(highest)))}</span><span>{escape(show(0))}</span></div>
<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{escape(told)}">
{lines}{runs}{_hovers(report, course, show)}
</svg>
<div class="ends"><span>{begin}</span><span>{end}</span></div>
</figure>
"""


def _runs(course: Course) -> Iterable[list[tuple[int, float]]]:
    """Parts that follow one another without a gap."""
    run: list[tuple[int, float]] = []
    for at, value in enumerate(course):
        if value is not None:
            run.append((at, value))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _run(run: Sequence[tuple[int, float]], highest: float) -> str:
    """A line of steps with the area below it."""
    width = WIDTH / PARTS

    def y(value: float) -> str:
        return f"{(HEIGHT - 4) * (1 - value / highest) + 2:.1f}"

    begin = f"{run[0][0] * width:.1f}"
    steps = "".join(f"V{y(value)}H{(at + 1) * width:.1f}" for at, value in run)
    top = f"M{begin} {y(run[0][1])}{steps}"
    return f'<path class="area" d="M{begin} {HEIGHT}{steps}V{HEIGHT}Z"/><path class="course" d="{top}"/>'


def _hovers(report: Report, course: Course, show: Callable[[int], str]) -> str:
    """What a part says where the pointer is on it."""
    width = WIDTH / PARTS
    part_usec = (report.end_usec - report.begin_usec) / PARTS

    def told(at: int, value: float) -> str:
        return escape(f"{stamp(int(report.begin_usec + at * part_usec))}: {show(int(value))}")

    return "".join(
        f'<rect class="hover" x="{at * width:.1f}" width="{width:.1f}" height="{HEIGHT}">'
        f"<title>{told(at, value)}</title></rect>"
        for at, value in enumerate(course)
        if value is not None
    )


def _owners(report: Report, by: By) -> str:
    rows = [owners.to_row(by, owner, account) for owner, account in report.owners[by]]
    if not rows:
        return ""
    titles = [column.title.capitalize() for column in owners.columns(by)]
    cells = [[_text(cell) for cell in owners.cells(by, row, report.end_usec)] for row in rows]
    return f"<h2>Left behind, by {escape(str(by))}</h2>{_table(titles, cells, words=len(titles) - 1)}"


def _reclaims(report: Report) -> str:
    rows = [
        [WAYS[way], str(outcome), str(count)] for way, outcome, count in report.totals.by_way_and_outcome()
    ]
    return f"<h2>Reclaims</h2>{_table(['When', 'Outcome', 'Count'], rows, words=1)}" if rows else ""


def _text(cell: str | Cell) -> str:
    return (cell.text if isinstance(cell, Cell) else cell) or "–"


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]], words: int) -> str:
    mark = ' class="words"'

    def line(tag: str, texts: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{mark if at == words else ''}>{escape(text)}</{tag}>" for at, text in enumerate(texts)
        )

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    head = f"<thead><tr>{line('th', titles)}</tr></thead>"
    return f'<div class="wide"><table>{head}<tbody>{body}</tbody></table></div>'
