"""Asks for a password on this terminal, through polkit's own agent, as systemctl does.

Hard facts (pkttyagent(1)):

- It registers for its parent process, reads the terminal by itself, and closes `--notify-fd` when
  polkit knows of it: only then may the call be made that needs it.
- `--fallback` leaves the asking to another agent, that of a desktop, where there is one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

AGENT = Path("/usr/bin/pkttyagent")
READY_SEC = 5.0
END_SEC = 2.0


@asynccontextmanager
async def password_agent() -> AsyncIterator[None]:
    """One for as long as the block runs; none where polkit's package is not installed."""
    ours, its = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            str(AGENT), f"--notify-fd={its}", "--fallback", pass_fds=(its,)
        )
    except OSError:
        process = None
    finally:
        os.close(its)
    try:
        if process is not None:
            await _closed(ours)
        yield
    finally:
        os.close(ours)
        if process is not None:
            await _end(process)


async def _closed(fd: int) -> None:
    """Returns when the other end of the pipe is closed, or nobody can wait longer."""
    loop = asyncio.get_running_loop()
    closed = asyncio.Event()
    loop.add_reader(fd, closed.set)
    try:
        async with asyncio.timeout(READY_SEC):
            await closed.wait()
    except TimeoutError:
        return
    finally:
        loop.remove_reader(fd)


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(END_SEC):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
