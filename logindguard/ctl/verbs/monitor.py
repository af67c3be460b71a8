"""monitor: the service's signals as they come; one JSON object a line with --json=short."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from typing import Any

from ...dbus.names import BUS_NAME
from ...text import printable, size
from ..client import Record
from ..context import Context
from ..exits import Exit
from ..records import SHORT_ID, dying_change, shown_path
from ..terminal import Colour
from ..times import SEC

_COLOURS = {"Reclaimed": None, "JobFinished": Colour.BOLD, "ModeChanged": Colour.YELLOW}


async def run(context: Context) -> Exit:
    events: asyncio.Queue[tuple[str, Record] | None] = asyncio.Queue()

    def hear(kind: str, *keys: str) -> Any:
        return lambda *values: events.put_nowait((kind, dict(zip(keys, values, strict=True))))

    with closing(await context.service()) as service:
        await service.on_signal("Reclaimed", "a{sv}", lambda record: events.put_nowait(("Reclaimed", record)))
        await service.on_signal("JobFinished", "us", hear("JobFinished", "job", "state"))
        await service.on_signal("ModeChanged", "ss", hear("ModeChanged", "mode", "reason"))
        await service.bus.track(BUS_NAME, lambda owner: _owner_changed(context, owner))
        gone = asyncio.create_task(service.bus.wait_disconnected())
        gone.add_done_callback(lambda _: events.put_nowait(None))
        context.out.note("Waiting for reclaims; Ctrl+C ends it.")
        left = context.options.number
        try:
            while left is None or left > 0:
                event = await events.get()
                if event is None:
                    context.out.error("The connection to the system bus was lost.")
                    return Exit.UNAVAILABLE
                _tell(context, *event)
                left = None if left is None else left - 1
        finally:
            gone.cancel()
            await asyncio.wait([gone])
    return Exit.OK


def _owner_changed(context: Context, owner: str) -> None:
    context.out.note(
        "The service is back." if owner else "The service has ended; waiting for it to come back."
    )


def _tell(context: Context, kind: str, event: Record) -> None:
    out = context.out
    if out.as_json:
        out.json({"signal": kind, **event})
    else:
        clock = time.strftime("%b %d %H:%M:%S", time.localtime(context.now_usec / SEC))
        out.line(f"{clock} {out.paint(_sentence(kind, event), _COLOURS[kind])}")
    out.flush()


def _sentence(kind: str, event: Record) -> str:
    if kind == "JobFinished":
        return f"Job {event['job']}: {printable(event['state'])}"
    if kind == "ModeChanged":
        return printable(f"Mode {event['mode']}: {event['reason']}")
    # The keys beyond the outcome are the service's to choose: what it does not tell is left out.
    words = [
        str(event.get("id", ""))[:SHORT_ID],
        f"{event.get('way', '')}:",
        shown_path(event["slice"]) if "slice" in event else "",
        str(event.get("outcome", "")),
        size(event.get("freed_bytes", 0)),
        f"({event['unit_class']})" if "unit_class" in event else "",
    ]
    fell = event.get("dying_after", 0) < event.get("dying_before", 0)
    told = " ".join(word for word in words if word)
    return printable(f"{told}, dying {dying_change(event)}" if fell else told)
