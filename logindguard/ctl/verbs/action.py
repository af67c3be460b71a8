"""What changes something: sweep, reclaim, pause, resume, reload, restore."""

from __future__ import annotations

import re
from contextlib import closing
from typing import Any

from ...text import counted, printable, span
from .. import local
from ..client import Record, Service
from ..context import Context
from ..exits import Exit, Failure
from ..jobs import wait_for
from ..records import shown_path, to_path
from ..table import Column
from ..times import parse_duration

PLAN = (Column("CGROUP", shrink=28, keep_end=True), Column("FILE"), Column("VALUE"), Column("PURPOSE"))
_UNIT = re.compile(r".+\.(scope|service|slice)")
_SESSION = re.compile(r"c?[0-9]+")  # as logind names them


async def sweep(context: Context) -> Exit:
    values: dict[str, bool | str] = {}
    if name := context.options.argument:
        values["path"] = to_path(name)
    return await _start(context, "Sweep", (), values)


async def reclaim(context: Context) -> Exit:
    name = context.options.argument
    member = "ReclaimUnit" if _UNIT.fullmatch(name) else "ReclaimSession"
    if member == "ReclaimSession" and not _SESSION.fullmatch(name):
        raise Failure(f"'{name}' is no session; a unit is named in full, such as {name}.service.", Exit.USAGE)
    return await _start(context, member, (name,), {})


async def _start(
    context: Context, member: str, arguments: tuple[str, ...], values: dict[str, bool | str]
) -> Exit:
    with closing(await context.service()) as service:
        # Loaded by connecting; where it is not installed, connecting has failed.
        from ...signals.bus import variants

        signature = "s" * len(arguments) + "a{sv}"
        body = (*arguments, variants(**values, dry_run=context.options.dry_run))
        if context.options.dry_run:
            _, plan = await service.act(member, signature, *body)
            _show_plan(context, list(plan))
            return Exit.OK
        if context.options.wait:
            return await wait_for(context, service, lambda: _job(service, member, signature, body))
        number = await _job(service, member, signature, body)
    if context.out.as_json:
        context.out.json({"job": number})
    else:
        context.out.result(f"Started as job {number}. 'logindguardctl monitor' tells when it is done.")
    return Exit.OK


async def _job(service: Service, member: str, signature: str, body: tuple[Any, ...]) -> int:
    number, _ = await service.act(member, signature, *body)
    return int(number)


def _show_plan(context: Context, plan: list[Record]) -> None:
    if context.out.as_json:
        context.out.json(plan)
        return
    rows = [
        (
            shown_path(str(row.get("path", ""))),
            str(row.get("file", "")),
            printable(str(row.get("value", ""))),
            str(row.get("purpose", "")),
        )
        for row in plan
    ]
    context.out.table(PLAN, rows, "planned write")


async def pause(context: Context) -> Exit:
    usec = 0
    if (written := context.options.for_) is not None:
        try:
            usec = parse_duration(written)
        except ValueError as error:
            sentence = f"--for= expects a duration such as '30min', not '{written}'."
            raise Failure(sentence, Exit.USAGE) from error
        if usec == 0:
            raise Failure("--for= expects more than 0.", Exit.USAGE)
    with closing(await context.service()) as service:
        await service.act("Pause", "t", usec)
    until = f"for {span(usec)}" if usec else "until 'logindguardctl resume'"
    context.out.result(f"Paused {until}.")
    return Exit.OK


async def resume(context: Context) -> Exit:
    with closing(await context.service()) as service:
        await service.act("Resume")
    context.out.result("Reclaims go on.")
    return Exit.OK


async def reload(context: Context) -> Exit:
    with closing(await context.service()) as service:
        await service.act("Reload")
    context.out.result("The settings were read again.")
    return Exit.OK


async def restore(context: Context) -> Exit:
    """By the service where it runs, by ourselves otherwise: both hold the ledger's lock."""
    service = await context.service_or_say("done without it")
    if service is None:
        restored = local.put_back(context.world.roots)
        found = {"restored": restored.restored, "not_ours": restored.not_ours, "gone": restored.gone}
        detail = f": {restored}" if restored.total else ""
    else:
        with closing(service):
            [count] = await service.act("Restore")
        found, detail = {"restored": count}, ""
    if context.out.as_json:
        context.out.json(found)
    elif found["restored"] or detail:
        context.out.result(f"Put back {counted(found['restored'], 'value')} of memory.min{detail}.")
    else:
        context.out.result("Nothing was left to put back.")
    return Exit.OK
