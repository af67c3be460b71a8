"""How much of a mapped share went lately: every pass over a residue takes some idle mapped pages along."""

from __future__ import annotations

import time

FORGIVE_SEC = 3600.0


class MappedLoss:
    """Bytes by inode of the target, melting away within an hour; it forgets what is forgiven."""

    def __init__(self) -> None:
        self._lost: dict[int, tuple[int, float]] = {}

    def lately(self, inode: int) -> int:
        lost_bytes, booked = self._lost.get(inode, (0, 0.0))
        left = 1.0 - (time.monotonic() - booked) / FORGIVE_SEC
        if left <= 0:
            self._lost.pop(inode, None)
            return 0
        return int(lost_bytes * left)

    def book(self, inode: int, lost_bytes: int) -> None:
        if lost_bytes <= 0:
            return
        for old in list(self._lost):
            self.lately(old)
        self._lost[inode] = (lost_bytes + self.lately(inode), time.monotonic())
