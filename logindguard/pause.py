"""The kill switch: while it is set, no reclaim of any way is begun. It outlives a restart of the service.

Hard facts (systemd.exec(5), clock_gettime(2)):

- The runtime directory is kept across restarts and is gone after a boot, and so is the pause: a
  machine that comes up reclaims.
- CLOCK_BOOTTIME goes on while the machine sleeps and nobody sets it, so a pause for an hour ends
  an hour later whatever happens to the wall clock.

Whatever cannot be read is taken for a pause, since that does no harm, and says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

MAX_USEC = 10 * 365 * 86_400_000_000  # longer is "until resumed"
LOOK_AGAIN_SEC = 60.0  # the loop's clock stands still while the machine sleeps

log = logging.getLogger(__name__)


def boottime_usec() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


class PauseError(Exception):
    """The pause cannot be kept on disk, so it would not outlive a restart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    uid: int
    until_boottime_usec: int = 0  # 0: until resumed
    until_realtime_usec: int = 0  # for people

    def __post_init__(self) -> None:
        if any(type(value) is not int or value < 0 for value in asdict(self).values()):
            raise ValueError(f"not a pause: {asdict(self)}")


class Pause:
    """Read once at the start; `on_change` hears of each change after that."""

    def __init__(self, directory: Path, on_change: Callable[[], None] = lambda: None) -> None:
        self._path = directory / "paused"
        self._on_change = on_change
        self._state: _State | None = None
        self._broken = ""
        self._changed = asyncio.Event()
        self._read()

    @property
    def reason(self) -> str:
        """Why nothing may be reclaimed now, as a clause that anybody may read; empty where it may."""
        return self._clause("paused")

    @property
    def details(self) -> str:
        """The same with who asked for it: for the journal, and for those who may pause it themselves."""
        if self._state is None:
            return self.reason
        return self._clause(f"paused by {f'uid {self._state.uid}' if self._state.uid else 'root'}")

    def _clause(self, paused: str) -> str:
        if self._broken:
            return self._broken
        state = self._state
        if state is None or (state.until_boottime_usec and boottime_usec() >= state.until_boottime_usec):
            return ""
        if not state.until_realtime_usec:
            return f"{paused} until it is resumed"
        until = datetime.fromtimestamp(state.until_realtime_usec // 1_000_000).astimezone()
        return f"{paused} until {until:%Y-%m-%d %H:%M:%S}"

    @property
    def until_realtime_usec(self) -> int:
        """When it ends by itself; 0 where it does not, or where there is none."""
        return self._state.until_realtime_usec if self._state else 0

    def pause(self, duration_usec: int, uid: int) -> None:
        """0 is until `resume`. Raises PauseError with the old state in force, ValueError above MAX_USEC."""
        if not 0 <= duration_usec <= MAX_USEC:
            raise ValueError("a pause is 10 years at most")
        state = _State(
            uid=uid,
            until_boottime_usec=duration_usec and boottime_usec() + duration_usec,
            until_realtime_usec=duration_usec and time.time_ns() // 1000 + duration_usec,
        )
        try:
            new = self._path.with_suffix(".new")
            new.write_text(json.dumps(asdict(state)))
            new.replace(self._path)  # whole, or as it was
        except OSError as error:
            raise PauseError(f"{self._path} cannot be written: {error.strerror}") from error
        self._set(state)

    def resume(self) -> None:
        """Raises PauseError with the old state in force."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise PauseError(f"{self._path} cannot be removed: {error.strerror}") from error
        if self._state is not None or self._broken:
            self._set(None)

    async def run(self) -> None:
        """Ends a pause at its deadline; until cancelled."""
        while True:
            self._changed.clear()
            left_sec = None
            if self._state is not None and self._state.until_boottime_usec:
                left_sec = max(0, self._state.until_boottime_usec - boottime_usec()) / 1e6
                if left_sec == 0:
                    self._end()
                    continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if left_sec is None else min(left_sec, LOOK_AGAIN_SEC)):
                    await self._changed.wait()

    def _end(self) -> None:
        try:
            self.resume()
        except PauseError as error:  # its deadline has passed all the same, after a restart too
            log.warning("%s.", error)
            self._set(None)

    def _set(self, state: _State | None) -> None:
        self._state, self._broken = state, ""
        self._changed.set()
        self._on_change()

    def _read(self) -> None:
        try:
            self._state = _State(**json.loads(self._path.read_text()))
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, RecursionError) as error:
            detail = (error.strerror if isinstance(error, OSError) else "") or "it is damaged"
            self._broken = f"paused, since {self._path} cannot be read ({detail}): resume to go on"
