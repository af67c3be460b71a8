"""SIGINT and SIGTERM as an exception, so that a demo takes away what it made."""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """SIGINT or SIGTERM; like KeyboardInterrupt nothing on the way may take it for an error."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def raise_when_interrupted() -> None:
    for number in SIGNALS:
        signal.signal(number, _raise)


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    # timeout(1) sends it twice, people press it twice: the clean-up must not be cut short.
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(number)
