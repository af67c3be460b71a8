"""doctor: will this host leak, and does the guard cover it."""

from __future__ import annotations

import os
import textwrap
from collections import Counter
from contextlib import closing
from dataclasses import asdict

from ...text import counted, printable
from ..client import Record, ServiceAbsent
from ..context import Context
from ..doctor.checks import examine
from ..doctor.finding import Finding, State, verdict
from ..doctor.logins import DAYS, Logins, from_journal, from_records
from ..doctor.readings import Readings, read
from ..exits import Exit, Failure
from ..journalctl import journalctl
from ..output import Output
from ..terminal import Colour
from ..times import SEC

_MARKS = {
    State.OK: ("✓", Colour.GREEN),
    State.NOTE: ("•", Colour.BLUE),
    State.WARN: ("!", Colour.YELLOW),
    State.FAIL: ("✗", Colour.RED),
}
_NAME_COLUMNS = 14
_WIDEST = 100
_NEW_SESSION = "8d45620c1a4348dbb17410da57c60c66"  # SD_MESSAGE_SESSION_START of sd-messages(3)
_JOURNAL_SEC = 20.0


async def run(context: Context) -> Exit:
    readings = await _read(context)
    findings = examine(readings)
    answer = verdict(readings.leaks, _covered(readings), findings)
    out = context.out
    if out.as_json:
        out.json(
            {"verdict": answer, "leaks": readings.leaks, "checks": [asdict(found) for found in findings]}
        )
    else:
        for line in lines(answer, findings, out):
            out.line(line)
    return Exit.NEGATIVE if any(found.state is State.FAIL for found in findings) else Exit.OK


def _covered(readings: Readings) -> bool:
    return readings.service is not None and readings.service.get("mode") != "observe"


async def _read(context: Context) -> Readings:
    """From the service what it knows; from the journal who logs in, where the service cannot tell."""
    now_usec = context.now_usec
    properties: Record | None = None
    last_usec: int | None = None
    history = False
    logins: tuple[Logins, ...] = ()
    try:
        service = await context.service()
    except ServiceAbsent as absent:
        context.out.note(f"{absent.reason}: read from the kernel directly.")
    else:
        with closing(service):
            properties = await service.properties()
            try:
                records = await service.reclaims(max(0, now_usec - DAYS * 86_400 * SEC))
                # Another user gets its own records alone, which is no error.
                history = bool(records) or os.geteuid() == 0
                last_usec = max((record["realtime_usec"] for record in records), default=None)
                logins = from_records(records)
            except Failure:  # not permitted, or no journal: the check says so
                pass
    if not logins:
        logins = from_journal(await _logged_in(context))
    return read(
        context.world.roots,
        service=properties,
        last_record_usec=last_usec,
        history=history,
        logins=logins,
        now_usec=now_usec,
    )


async def _logged_in(context: Context) -> list[str]:
    """One user name a login, from logind's entries of the last days; none where they cannot be read."""
    found = await journalctl(
        *("--output=cat", "--output-fields=USER_ID", f"--since=-{DAYS}d", f"MESSAGE_ID={_NEW_SESSION}"),
        environment=context.world.environment,
        max_sec=_JOURNAL_SEC,
    )
    return [printable(line) for line in found if line]


def lines(answer: str, findings: list[Finding], out: Output) -> list[str]:
    """The verdict, one block a finding, and a count. What is well is told in one line, but for --full."""
    columns = min(_WIDEST, out.terminal.columns or _WIDEST)
    states = Counter(finding.state for finding in findings)
    worst = next(state for state in reversed(State) if states[state] or state is State.OK)
    told = [f"{out.paint('●', _MARKS[worst][1])} {out.paint(answer, Colour.BOLD)}", ""]
    for finding in findings:
        mark, colour = _MARKS[finding.state]
        head = f"  {out.paint(mark, colour)} {finding.check:<{_NAME_COLUMNS}} "
        indent = " " * (_NAME_COLUMNS + 5)
        first, *rest = textwrap.wrap(printable(finding.finding), columns - len(indent)) or [""]
        told.append(head + out.paint(first, None if finding.state is State.OK else colour))
        told += [indent + out.paint(line, None if finding.state is State.OK else colour) for line in rest]
        if finding.state is not State.OK or out.full:
            told += textwrap.wrap(
                printable(finding.why), columns, initial_indent=indent, subsequent_indent=indent
            )
            if finding.command:
                told.append(f"{indent}{out.paint('->', Colour.GREY)} {printable(finding.command)}")
    if out.legend:
        parts = [f"{states[State.OK]} ok"]
        for state, noun in ((State.NOTE, "note"), (State.WARN, "warning"), (State.FAIL, "failure")):
            if states[state]:
                parts.append(counted(states[state], noun))
        told += ["", f"{counted(len(findings), 'check')}: {', '.join(parts)}."]
    return told
