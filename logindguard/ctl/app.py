"""The command: parses, runs one verb, and ends with its exit status."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from .. import __version__
from .command_line import help_text
from .context import Context, World
from .exits import Exit, Failure
from .output import Json, Output
from .parser import parse
from .terminal import look_at
from .verbs import (
    action,
    blame,
    config,
    doctor,
    explain,
    history,
    inventory,
    listing,
    metrics,
    monitor,
    report,
    show,
    status,
    top,
)

RUN: dict[str, Callable[[Context], Coroutine[Any, Any, Exit]]] = {
    "status": status.run,
    "list": listing.run,
    "history": history.run,
    "show": show.run,
    "blame": blame.run,
    "explain": explain.run,
    "report": report.run,
    "inventory": inventory.run,
    "metrics": metrics.run,
    "top": top.run,
    "monitor": monitor.run,
    "check": status.check,
    "doctor": doctor.run,
    "sweep": action.sweep,
    "reclaim": action.reclaim,
    "pause": action.pause,
    "resume": action.resume,
    "restore": action.restore,
    "config": config.run,
    "reload": action.reload,
}
STREAMS = frozenset(
    {"top", "monitor", "sweep", "reclaim", "explain"}
)  # written as it comes, never through a pager


def main(argv: Sequence[str] | None = None, world: World | None = None) -> int:
    """One of exits.Exit; errors are one sentence on stderr."""
    world = world or World()
    terminal = look_at(world.stdout, world.environment)
    out = Output(world.stdout, world.stderr, terminal, pager_environment=world.environment)
    try:
        return _run(sys.argv[1:] if argv is None else argv, world, out)
    except Failure as failure:
        _flush_quietly(out)
        out.error(str(failure))
        return failure.status
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:  # who read the output has seen enough
        return Exit.OK
    except Exception as error:  # a fault of ours must not pass for the answer "no", which is 1
        if world.environment.get("SYSTEMD_LOG_LEVEL") == "debug":
            raise
        out.error(f"Internal error: {error!r}. SYSTEMD_LOG_LEVEL=debug shows where.")
        return Exit.INTERNAL


def _run(argv: Sequence[str], world: World, out: Output) -> Exit:
    options = parse(argv)
    if options.help:
        out.line(help_text())
    elif options.version:
        out.line(f"logindguard {__version__}")
    if options.help or options.version:
        out.flush(paged=not options.no_pager)
        return Exit.OK
    out.json_mode = Json(options.json or Json.OFF)
    if options.j and options.json is None:
        out.json_mode = Json.PRETTY if out.terminal.interactive else Json.SHORT
    out.legend = not options.no_legend
    out.quiet = options.quiet
    out.full = options.full
    status = asyncio.run(RUN[options.verb](Context(options=options, out=out, world=world)))
    out.flush(paged=not options.no_pager and options.verb not in STREAMS)
    return status


def _flush_quietly(out: Output) -> None:
    try:
        out.flush()
    except (OSError, Failure):
        return
