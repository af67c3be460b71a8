"""What journalctl prints: lines to show or to read, and none where it is not there or takes too long."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping


async def journalctl(*arguments: str, environment: Mapping[str, str], max_sec: float) -> list[str]:
    try:
        process = await asyncio.create_subprocess_exec(
            *("journalctl", "--quiet", "--no-pager", *arguments),
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return []
    try:
        async with asyncio.timeout(max_sec):
            printed, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return []
    return printed.decode("utf-8", "replace").splitlines()
