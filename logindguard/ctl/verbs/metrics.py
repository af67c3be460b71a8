"""metrics: all figures in Prometheus' text format, whatever else runs."""

from __future__ import annotations

from contextlib import closing

from ... import __version__
from ...metrics import Figures, exposition
from .. import local
from ..client import Record
from ..context import Context
from ..exits import Exit


async def run(context: Context) -> Exit:
    figures = await _figures(context)
    if context.out.as_json:
        residues = [
            {"path": path, **({} if dying is None else {"dying": dying}), "file_bytes": count_bytes}
            for path, dying, count_bytes in figures.residues
        ]
        head = {"version": figures.version, "mode": figures.mode, "up": figures.up}
        context.out.json({**head, "dying_count": figures.dying, "residues": residues, **figures.statistics})
        return Exit.OK
    for line in exposition(figures).splitlines():
        context.out.line(line)
    return Exit.OK


async def _figures(context: Context) -> Figures:
    """Those of the service, or the few of them that the kernel tells."""
    service = await context.service_or_say()
    if service is None:
        host = local.host(context.world.roots)
        return Figures(
            version=__version__,
            mode=str(host.mode),
            dying=local.total_dying(host),
            residues=[_residue(row) for row in local.residues(host)],
            up=False,
        )
    with closing(service):
        properties = await service.properties()
        [statistics] = await service.call("GetStatistics")
        return Figures(
            version=str(properties["version"]),
            mode=str(properties["mode"]),
            dying=int(properties["dying_count"]),
            residues=[_residue(row) for row in await service.residues()],
            statistics=statistics,
        )


def _residue(row: Record) -> tuple[str, int | None, int]:
    return row["path"], row.get("dying"), row.get("file_bytes", 0)
