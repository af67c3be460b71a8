"""Whether the host has room for a sweep, which can always wait: with hysteresis for each sign.

Where all CPUs are taken, a thread of idle priority would sit in a window with the shield up and the
ledger's lock held, and teardowns would wait for it. On a host that is always so, what is left would
never be swept: after a while it is, at normal priority, which its share keeps small. Where tasks wait
for the disk, or pages are being swapped, or little memory is available, what a sweep takes may be what
is read next.

Pure: time is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .config import PressureSettings
from .kernel.cgroupfs import PAGE_BYTES
from .kernel.pressure import Signs

BUSY = PressureSettings(pause_percent=60.0, resume_percent=30.0)  # CPU and I/O: most hosts are now and then
CPU_PATIENCE_USEC = 600_000_000
SWAP_PAUSE_PAGES, SWAP_RESUME_PAGES = 256, 32  # a second, in and out
SWAP_SPAN_USEC = 1_000_000  # a rate over less than this is noise
HEADROOM_PART = 4  # this part more than the least has to be available before it goes on


@dataclass(slots=True)
class Room:
    """Remembers which signs hold the sweep up, and what was swapped when."""

    _signs: Signs = field(default_factory=Signs)
    _memory: bool = False
    _cpu_since_usec: int | None = None  # that CPUs are taken
    _cpu_waited: bool = False  # for long enough
    _io: bool = False
    _swap: bool = False
    _little: bool = False
    _swapped: tuple[int, int] | None = None  # when it was read, pages since the start of the machine
    _swap_rate: float = 0.0  # pages a second

    @property
    def crowded(self) -> bool:
        """Whether a thread of idle priority would not get on."""
        return self._cpu_since_usec is not None

    def look(self, signs: Signs, settings: PressureSettings, min_available_bytes: int, now_usec: int) -> None:
        self._signs = signs
        self._memory = over(self._memory, signs.memory_percent, settings)
        if not over(self.crowded, signs.cpu_percent, BUSY):
            self._cpu_since_usec = None
        elif self._cpu_since_usec is None:
            self._cpu_since_usec = now_usec
        since_usec = self._cpu_since_usec
        self._cpu_waited = since_usec is not None and now_usec - since_usec >= CPU_PATIENCE_USEC
        self._io = over(self._io, signs.io_percent, BUSY)
        self._note_swapped(signs.swapped_pages, now_usec)
        self._swap = self._swap_rate >= (SWAP_RESUME_PAGES if self._swap else SWAP_PAUSE_PAGES)
        least_bytes = min_available_bytes + (min_available_bytes // HEADROOM_PART if self._little else 0)
        self._little = signs.available_bytes is not None and signs.available_bytes < least_bytes

    def reason(self, *, asked: bool) -> str:
        """Why a sweep has to wait, as a clause; empty when the host has room.

        CPUs that are taken hold up none that somebody asked for, and others for a while only.
        """
        signs = self._signs
        if self._memory:
            return f"memory pressure ({signs.memory_percent:.0f} % some)"
        if self._little:
            return f"little memory is available ({(signs.available_bytes or 0) >> 20} MiB)"
        if self._swap:
            return f"pages are being swapped ({self._swap_rate * PAGE_BYTES / (1 << 20):.1f} MiB/s)"
        if self.crowded and not asked and not self._cpu_waited:
            return f"CPU pressure ({signs.cpu_percent:.0f} % some)"
        if self._io:
            return f"I/O pressure ({signs.io_percent:.0f} % some)"
        return ""

    def _note_swapped(self, pages: int | None, now_usec: int) -> None:
        if pages is None:
            self._swapped, self._swap_rate = None, 0.0
        elif self._swapped is None:
            self._swapped = now_usec, pages
        elif (passed_usec := now_usec - self._swapped[0]) >= SWAP_SPAN_USEC:
            self._swap_rate = max(0, pages - self._swapped[1]) * 1e6 / passed_usec
            self._swapped = now_usec, pages


def over(was_over: bool, percent: float | None, settings: PressureSettings) -> bool:
    """Hysteresis: pause at the upper bound, go on below the lower one."""
    if percent is None:
        return False
    return percent >= (settings.resume_percent if was_over else settings.pause_percent)
