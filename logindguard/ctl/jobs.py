"""Waiting for a job of the service, with its progress on a terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ..text import printable, size, span
from .client import Record, Service
from .context import Context
from .exits import Exit, Failure
from .records import dying_change
from .terminal import Colour, Terminal, width

POLL_SEC = 0.3
BAR_COLUMNS = 24
_CLEAR = "\r\x1b[K"
_RUNNING = "running"


async def wait_for(context: Context, service: Service, start: Callable[[], Awaitable[int]]) -> Exit:
    """Start a job and follow it to its end. Ctrl+C cancels it: nobody would hear of its end."""
    finished: dict[int, str] = {}
    woken = asyncio.Event()

    def heard(job: int, state: str) -> None:
        finished[job] = state
        woken.set()

    await service.on_signal("JobFinished", "us", heard)  # before the start, so that none is missed
    gone = asyncio.create_task(service.bus.wait_disconnected())
    gone.add_done_callback(lambda _: woken.set())
    number = await start()
    try:
        job = await _follow(context, service, number, finished, woken, gone)
    except asyncio.CancelledError:
        await _cancel(context, service, number)
        raise
    finally:
        gone.cancel()
        await asyncio.wait([gone])
    return _told(context, number, job)


async def _follow(
    context: Context,
    service: Service,
    number: int,
    finished: dict[int, str],
    woken: asyncio.Event,
    gone: asyncio.Task[None],
) -> Record:
    """The job as it is listed at its end. The signal only makes it quicker: the list is what counts."""
    shows = context.out.terminal.interactive and not context.out.quiet and not context.out.as_json
    try:
        while True:
            if gone.done():
                raise Failure(
                    "The connection to the system bus was lost; the job may go on.", Exit.UNAVAILABLE
                )
            job = await service.job(number)
            if job is None:
                return {"id": number, "state": finished.get(number, "unknown")}
            if job.get("state") != _RUNNING:
                return job
            if shows:
                _draw(context, progress(job, context.now_usec, context.out.terminal))
            try:
                async with asyncio.timeout(POLL_SEC):
                    await woken.wait()
            except TimeoutError:
                continue
            woken.clear()
    finally:
        if shows:
            _draw(context, "")


def _draw(context: Context, line: str) -> None:
    context.out.stdout.write(f"{_CLEAR}{line}")
    context.out.stdout.flush()


def progress(job: Record, now_usec: int, terminal: Terminal) -> str:
    """One line without its end; the bar fills as dying memcgs go."""
    before = job.get("dying_before", 0)
    after = job.get("dying_after", before)
    done = min(1.0, max(0.0, 1 - after / before)) if before else 0.0
    filled = round(done * BAR_COLUMNS)
    bar = terminal.paint("━" * filled, Colour.GREEN) + terminal.paint(
        "━" * (BAR_COLUMNS - filled), Colour.GREY
    )
    if not terminal.colour:
        bar = "━" * filled + " " * (BAR_COLUMNS - filled)
    passed = span(max(0, now_usec - job.get("started_usec", now_usec)) // 1_000_000 * 1_000_000)
    freed = size(job.get("freed_bytes", 0))
    text = f" {done:4.0%}  {before} -> {after} dying memcgs, {freed} released, {passed}"
    if waits := job.get("reason"):
        text += f", waits: {printable(waits)}"
    if terminal.columns is not None and BAR_COLUMNS + width(text) >= terminal.columns:
        return text.strip()[: terminal.columns - 1]
    return bar + text


async def _cancel(context: Context, service: Service, number: int) -> None:
    try:
        await service.act("CancelJob", "u", number)
        context.out.note(f"Canceled job {number}.")
    except Failure as failure:
        context.out.note(f"Job {number} goes on: {failure}")


def _sentence(number: int, job: Record) -> str:
    """ "Job 7 is done: released 4M, dying memcgs 1000 -> 3; waits for writeback." """
    state, reason = str(job.get("state", "")), printable(str(job.get("reason", "")))
    words = []
    if job.get("freed_bytes") or job.get("dying_after", 0) < job.get("dying_before", 0):
        freed = size(job.get("freed_bytes", 0))
        words.append(f"released {freed}, dying memcgs {dying_change(job)}")
    if reason and reason != state:
        words.append(reason)
    ended = {"done": "is done", "canceled": "was canceled", "failed": "failed"}.get(state, f"is {state}")
    return f"Job {number} {ended}{': ' if words else ''}{'; '.join(words)}."


def _told(context: Context, number: int, job: Record) -> Exit:
    state = str(job.get("state", ""))
    if context.out.as_json:
        context.out.json(job)
    else:
        context.out.result(_sentence(number, job))
    return Exit.OK if state == "done" else Exit.NEGATIVE
