"""What is dying at this moment, as blame and report need it: of the service, or of the kernel itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

from . import local
from .context import Context


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """`dying` is by live parent; of the whole machine on cgroup v1, which has no such count."""

    mode: str
    total: int
    dying: Mapping[str, int] | int
    reasons: Mapping[str, str]  # why, by live parent
    residue_bytes: int


async def read(context: Context) -> Now:
    """Says where it was the kernel that was asked."""
    service = await context.service_or_say()
    if service is None:
        host = local.host(context.world.roots)
        rows, total = local.residues(host), local.total_dying(host)
        version, mode = host.hierarchy.version, str(host.mode)
    else:
        with closing(service):
            properties = await service.properties()
            rows, total = await service.residues(), int(properties["dying_count"])
            version, mode = int(properties["cgroup_version"]), str(properties["mode"])
    dying: Counter[str] = Counter()
    for row in rows if version != 1 else ():
        dying[row["path"]] += row["dying"]  # a slice, and what hangs below it of users who are not named
    return Now(
        mode=mode,
        total=total,
        dying=total if version == 1 else dying,
        reasons={row["path"]: row.get("reason", "") for row in rows},
        residue_bytes=sum(row.get("file_bytes", 0) for row in rows),
    )
