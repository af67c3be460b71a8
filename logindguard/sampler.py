"""Tells regularly how things stand: a textfile for metrics, an entry in the journal for trends."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from .config import MetricsSettings
from .kernel.cgroupfs import KernelError
from .metrics import Figures, exposition
from .model import Mode, Sample
from .reclaimer import now_usec
from .record.textfile import replace_text

NOT_WRITABLE = ": restart the service where the directory is new, or add it to ReadWritePaths="

log = logging.getLogger(__name__)


class Sampler:
    """`settings` are asked anew each time, `figures` no more often than they say."""

    def __init__(
        self,
        figures: Callable[[], Awaitable[Figures]],
        settings: Callable[[], MetricsSettings],
        *,
        tell: Callable[[Sample], None],
    ) -> None:
        self._figures = figures
        self._settings = settings
        self._tell = tell
        self._wake = asyncio.Event()
        self._sampled_usec = now_usec()  # the start counts: what is asked first is asked of a host at work
        self._written: Path | None = None
        self._failure = ""  # the last one, so that it is told once

    def wake(self) -> None:
        """Settings have changed."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled; the textfile goes then: what it says holds no more."""
        try:
            while True:
                await self._tick(self._settings())
                wait_usec = self._next_usec(self._settings())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if wait_usec is None else wait_usec / 1e6):
                        await self._wake.wait()
                self._wake.clear()
        finally:
            self._remove()

    def _next_usec(self, settings: MetricsSettings) -> int | None:
        """From now; None where there is nothing to do until the settings change."""
        due_usec = [settings.interval_usec] if settings.textfile else []
        if settings.sample_usec:
            due_usec.append(max(0, self._sampled_usec + settings.sample_usec - now_usec()))
        return min(due_usec, default=None)

    async def _tick(self, settings: MetricsSettings) -> None:
        sample = settings.sample_usec > 0 and now_usec() >= self._sampled_usec + settings.sample_usec
        if self._written is not None and str(self._written) != settings.textfile:
            self._remove()
        if not sample and not settings.textfile:
            return
        if sample:
            self._sampled_usec = now_usec()
        try:
            figures = await self._figures()
        except (KernelError, OSError) as error:
            self._failed(str(error))
            return
        if sample:
            self._tell(sample_of(figures))
        if settings.textfile:
            self._written = Path(settings.textfile)
            try:
                await self._write(self._written, exposition(figures))
            except OSError as error:
                hint = NOT_WRITABLE if error.errno == errno.EROFS else ""
                self._failed(f"{self._written}: {error.strerror}{hint}")
                return
        self._failure = ""

    def _failed(self, reason: str) -> None:
        if reason != self._failure:
            self._failure = reason
            log.warning("Metrics cannot be told: %s.", reason)

    async def _write(self, path: Path, text: str) -> None:
        writing = asyncio.create_task(asyncio.to_thread(replace_text, path, text))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait({writing})  # a thread goes on, and would write what was removed meanwhile
            raise

    def _remove(self) -> None:
        if self._written is not None:
            with contextlib.suppress(OSError):
                self._written.unlink()
            self._written = None


def sample_of(figures: Figures) -> Sample:
    totals = figures.statistics
    return Sample(
        realtime_usec=time.time_ns() // 1000,
        mode=Mode(figures.mode),
        dying=figures.dying,
        residue_bytes=sum(count_bytes for _, _, count_bytes in figures.residues),
        teardowns_total=totals["teardowns_total"],
        freed_bytes_total=totals["freed_bytes_total"],
        stolen_pages_total=totals["stolen_pages_total"],
        cpu_usec_total=totals["cpu_usec_total"],
    )
