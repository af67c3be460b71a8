"""show: all of one record, for machines: KEY=VALUE, as loginctl's show- verbs."""

from __future__ import annotations

import re
from contextlib import closing
from typing import Any

from ...text import printable
from ..client import Record, Service
from ..context import Context
from ..exits import Exit, Failure
from ..output import json_text
from ..records import units_of, with_users

_ID = re.compile(r"[0-9a-f]{4,32}")
FULL_ID = 32


async def run(context: Context) -> Exit:
    with closing(await context.service()) as service:
        record = with_users(await _find(service, context.options.argument))
    wanted: list[str] = context.options.property
    if unknown := [name for name in wanted if name not in record]:
        # A key without a value is absent: only what no record has is an error.
        wanted = [name for name in wanted if name not in unknown]
        if not all(re.fullmatch(r"[a-z_]+", name) for name in unknown):
            raise Failure(f"Properties are written like 'freed_bytes', not '{unknown[0]}'.", Exit.USAGE)
    names = wanted if context.options.property else list(record)
    if context.out.as_json:
        context.out.json({name: record[name] for name in names})
        return Exit.OK
    for name in names:
        value = _text(record[name])
        context.out.line(value if context.options.value else f"{name}={value}")
    return Exit.OK


async def _find(service: Service, name: str) -> Record:
    """By id, by the beginning of one, or the last record of a unit."""
    if not _ID.fullmatch(name):
        if last := await service.reclaims(most=1, wanted=lambda record: name in units_of(record)):
            return last[0]
        hint = "" if "." in name else "; a unit is named in full, such as session-67.scope"
        raise Failure(f"There is no record of unit '{name}'{hint}.", Exit.NOT_FOUND)
    if len(name) == FULL_ID:
        [found] = await service.call("GetReclaim", "s", name)
        return dict(found)
    records = await service.reclaims(most=2, wanted=lambda record: str(record["id"]).startswith(name))
    if not records:
        raise Failure(f"There is no record '{name}'.", Exit.NOT_FOUND)
    if len(records) > 1:
        raise Failure(f"'{name}' is the beginning of several records: give more of it.", Exit.USAGE)
    return records[0]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict | list):
        return json_text(value) if value else ""
    return printable(str(value))
