"""One line for each cause and hour: what goes on failing, or users make fail, must not fill the journal."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

HOUR_SEC = 3600.0
MAX_OF_A_KIND = 20  # different texts in an hour: their paths may be of users' making
MAX_KNOWN = 1024

# For `extra` of a line that is an answer to somebody's request, and due each time.
EACH_TIME: Mapping[str, object] = {"each_time": True}


class Repeats:
    """Pure but for its clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._told: OrderedDict[tuple[str, str], float] = OrderedDict()  # oldest first

    def told(self, kind: str, text: str) -> bool:
        """Whether `text` was told within the hour, or enough of its kind was; else it counts as told now."""
        with self._lock:  # a logging.Handler filters before it takes its own
            return self._is_repeat(kind, text, self._clock())

    def _is_repeat(self, kind: str, text: str, now: float) -> bool:
        while self._told and (
            next(iter(self._told.values())) <= now - HOUR_SEC or len(self._told) > MAX_KNOWN
        ):
            self._told.popitem(last=False)
        if (kind, text) in self._told or sum(each == kind for each, _ in self._told) >= MAX_OF_A_KIND:
            return True
        self._told[kind, text] = now
        return False


class OncePerHour(logging.Filter):
    """For a handler; what is for debugging, and what ends the program, passes each time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._repeats = Repeats(clock)

    def filter(self, record: logging.LogRecord) -> bool:
        if not logging.DEBUG < record.levelno < logging.CRITICAL or hasattr(record, "each_time"):
            return True
        error = record.exc_info[1] if record.exc_info else None
        text = f"{record.getMessage()} {error!r}"
        return not self._repeats.told(f"{record.name}:{record.lineno}", text)
