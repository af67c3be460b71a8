"""explain: what holds the dying memcgs under one cgroup, by kind, and the files whose page cache it is."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...kernel import units
from ...kernel.cgroupfs import CgroupGone, KernelError, within
from ...kernel.charged_files import ChargedFile, Search, find
from ...kernel.features import version_of
from ...kernel.page_owner import NoPageOwners, PageOwners
from ...kernel.pins import KERNEL_MEMORY_LETS_GO, Explained, Kind, Pin, explain
from ...text import counted, printable, size, span
from ...verdict import HOLDS, HOLDS_TOO, KERNEL_MEMORY, MEANS, NOISE_BYTES, REFERENCES, verdict
from .. import local
from ..client import Record, ServiceAbsent
from ..context import Context
from ..exits import Exit, Failure
from ..records import shown_path, to_path
from ..roots import Roots
from ..table import Cell, Column, Row
from ..terminal import Colour, ellipsize
from ..times import ago

COLUMNS = (
    Column("KIND"),
    Column("HELD", right=True),
    Column("TOTAL", right=True),
    Column("LIVE", right=True),
    Column("READING", shrink=12),
    Column("WHAT THAT MEANS", shrink=24),
)
FILES = (
    Column("CHARGED", right=True),
    Column("CACHED", right=True),
    Column("FILE", shrink=30, keep_end=True),
    Column("STATE", nothing=""),
)
MOST_FILES = 20
READ_SEC = 30.0  # what is charged to the live cgroups beside
DRAW_SEC = 0.2
_CLEAR = "\r\x1b[K"


async def run(context: Context) -> Exit:
    options, out = context.options, context.out
    directories = [Path(each) for each in options.files]
    if directories and os.geteuid() != 0:
        raise Failure("Only root may find out whose page cache is whose.", Exit.DENIED)
    host = local.host(context.world.roots)
    try:
        path = _resolve(host, options.argument)
        found = await _read(host, path)
    except (CgroupGone, ValueError) as error:
        raise Failure(f"There is no live cgroup '{printable(options.argument)}'.", Exit.NOT_FOUND) from error
    except KernelError as error:
        raise Failure(f"It cannot be read: {error}.", Exit.KERNEL) from error
    search = await _search(context, directories, found) if directories else None
    standing = await _standing(context, path)
    if out.as_json:
        out.json(_record(found, standing, search))
        return Exit.OK
    _show(context, found, standing)
    if found.dying is None and out.legend:
        total = counted(local.total_dying(host), "dying memcg")
        out.line(f"{total} on this machine, which cgroup v1 does not count by cgroup.")
    for line in _deeper(host, path) if out.legend else ():
        out.line(line)
    if search is not None:
        _show_files(context, found, search)
    return Exit.OK


def _resolve(host: local.Host, name: str) -> str:
    """A cgroup path of what `to_path` takes, or of another unit."""
    if "/" not in name and not name.endswith(".slice") and units.is_unit(name):
        found = units.find(host.hierarchy, (), name)
        if found:
            return found[0]
    return to_path(name)


async def _read(host: local.Host, path: str) -> Explained:
    """On a thread; Ctrl+C ends it."""
    stop = threading.Event()
    deadline = time.monotonic() + READ_SEC

    def should_stop() -> bool:
        return stop.is_set() or time.monotonic() >= deadline

    def work() -> Explained:
        return explain(host.hierarchy, path, host.features.dying_key, should_stop=should_stop)

    try:
        return await asyncio.to_thread(work)
    finally:
        stop.set()


async def _standing(context: Context, path: str) -> Record:
    """What the sweep of a running service says of it; empty where there is none."""
    try:
        service = await context.service()
    except ServiceAbsent:
        return {}
    with closing(service):
        return next((row for row in await service.residues() if row["path"] == path), {})


def _deeper(host: local.Host, path: str) -> list[str]:
    names = [shown_path(each) for each in local.parents(host) if within(each, path) and each != path]
    if not names:
        return []
    return ["Deeper, each to be explained by itself: " + ", ".join(names[:5]) + ("…" if names[5:] else "")]


def _record(found: Explained, standing: Record, search: Search | None) -> Record:
    record: dict[str, Any] = asdict(found) | {"pins": [asdict(pin) for pin in found.pins]}
    if found.dying is None:
        del record["dying"]
    record |= {key: standing[key] for key in ("reason", "tries", "next_usec") if key in standing}
    if search is not None:
        files = [asdict(each) for each in search.found]
        record["files"] = [{key: value for key, value in row.items() if value is not None} for row in files]
        record |= {"files_looked_at": search.files, "complete": search.complete}
    return record


def _show(context: Context, found: Explained, standing: Record) -> None:
    out = context.out
    dying = "dying memcgs" if found.dying is None else counted(found.dying, "dying memcg")
    out.line(f"{shown_path(found.path)}: {dying}, beside {counted(found.live_children, 'live cgroup')}.")
    out.line()
    means = _means(context.world.roots)
    shown = [pin for pin in found.pins if out.full or pin.held_bytes >= _least(pin)]
    out.table(
        COLUMNS, [_row(pin, means[pin.kind]) for pin in shown], "kind", empty="Nothing is charged to them."
    )
    if not out.legend:
        return
    if found.processes:
        out.line("Processes live in it: what they hold is among that, since nothing tells it apart.")
    said = verdict(found, kernel_memory_holds=_kernel_memory_holds(context.world.roots))
    if found.dying and not said.kinds:
        out.line(REFERENCES)
    elif said.unknown:
        them = counted(said.unknown, "dying memcg")
        out.line(f"None of that holds at least {them}: others below do, or something unknown.")
    if reason := standing.get("reason"):
        next_usec = standing.get("next_usec", 0)
        again = f"; next try {ago(next_usec, context.now_usec)}" if next_usec else ""
        out.line(f"The sweep says: {printable(reason)}{again}.")


def _least(pin: Pin) -> int:
    return NOISE_BYTES if pin.kind is Kind.OTHER else 1


def _row(pin: Pin, means: str) -> Row:
    colour = Colour.YELLOW if pin.kind in HOLDS - {Kind.CLEAN} and pin.held_bytes else None
    return (
        str(pin.kind),
        Cell(size(pin.held_bytes) if pin.held_bytes else "", colour),
        size(pin.parent_bytes) if pin.parent_bytes else "",
        size(pin.live_bytes) if pin.live_bytes else "",
        f"{pin.file}: {pin.key}" if pin.key else pin.file,
        means,
    )


def _means(roots: Roots) -> dict[Kind, str]:
    """Of each kind on this kernel."""
    means = {**MEANS} | {Kind.DIRTY: MEANS[Kind.DIRTY] + _dirty_expiry(roots)}
    return means | (dict.fromkeys(KERNEL_MEMORY, HOLDS_TOO) if _kernel_memory_holds(roots) else {})


def _kernel_memory_holds(roots: Roots) -> bool:
    try:
        return version_of((roots.proc / "sys/kernel/osrelease").read_text()) < KERNEL_MEMORY_LETS_GO
    except OSError:
        return False


def _dirty_expiry(roots: Roots) -> str:
    """ ", which begins 30s after it was changed": proc_sys_vm(5), dirty_expire_centisecs."""
    try:
        centisecs = int((roots.proc / "sys/vm/dirty_expire_centisecs").read_text())
    except (OSError, ValueError):
        return ""
    return f", which begins {span(centisecs * 10_000)} after it was changed"


async def _search(context: Context, directories: list[Path], found: Explained) -> Search:
    """On a thread, its progress drawn on a terminal; Ctrl+C ends it."""
    stop = threading.Event()
    shows = context.out.terminal.interactive and not context.out.quiet and not context.out.as_json
    drawn = 0.0

    def progress(search: Search) -> None:
        nonlocal drawn
        if shows and time.monotonic() >= drawn + DRAW_SEC:
            drawn = time.monotonic()
            _draw(context, f"{counted(search.files, 'file')}, {size(search.charged_bytes)} found")

    def work() -> Search:
        with PageOwners(context.world.roots.proc) as owners:
            return find(directories, found.inode, owners=owners, progress=progress, should_stop=stop.is_set)

    try:
        return await asyncio.to_thread(work)
    except NoPageOwners as error:
        raise Failure(str(error), Exit.UNAVAILABLE) from error
    except OSError as error:
        raise Failure(f"{error.filename or 'A file'}: {error.strerror}.", Exit.NOT_FOUND) from error
    finally:
        stop.set()
        if shows:
            _draw(context, "")


def _draw(context: Context, line: str) -> None:
    columns = context.out.terminal.columns
    shown = line if columns is None else ellipsize(line, columns - 1)
    context.out.stdout.write(f"{_CLEAR}{shown}")
    context.out.stdout.flush()


def _show_files(context: Context, found: Explained, search: Search) -> None:
    out = context.out
    most = MOST_FILES if context.options.number is None else context.options.number
    shown = search.found if out.full else search.found[:most]
    out.line()
    out.table(FILES, [_file_row(each) for each in shown], "file", empty="None of the files is charged there.")
    if not out.legend:
        return
    if more := len(search.found) - len(shown):
        out.line(f"{counted(more, 'more file')} with less, see --full.")
    clean = next(pin for pin in found.pins if pin.kind is Kind.CLEAN)
    cache_bytes = max(0, clean.parent_bytes - clean.live_bytes)
    elsewhere_bytes = max(0, cache_bytes - search.charged_bytes)
    told = f"{size(search.charged_bytes)} of {size(cache_bytes)} found in {counted(search.files, 'file')}"
    rest = f"; {size(elsewhere_bytes)} is of files elsewhere, and of directories" if elsewhere_bytes else ""
    out.line(f"{told}{rest}.")
    if not search.complete:
        out.line("The search was stopped: it took too long. Name smaller directories.")
    if search.unreadable:
        out.line(f"{counted(search.unreadable, 'file')} could not be read.")


def _file_row(each: ChargedFile) -> Row:
    state = f"deleted, open in process {each.pid}" if each.pid is not None else ""
    return (
        size(each.charged_bytes),
        size(each.cached_bytes),
        printable(each.path),
        Cell(state, Colour.YELLOW),
    )
