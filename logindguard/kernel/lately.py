"""What went at a target lately, where one reclaim looks harmless and many of them are not."""

from __future__ import annotations

import time

FORGIVE_SEC = 3600.0


class Lately:
    """Bytes by inode of the target, melting away within an hour; it forgets what is forgiven."""

    def __init__(self) -> None:
        self._bytes: dict[int, tuple[int, float]] = {}

    def at(self, inode: int) -> int:
        size_bytes, booked = self._bytes.get(inode, (0, 0.0))
        left = 1.0 - (time.monotonic() - booked) / FORGIVE_SEC
        if left <= 0:
            self._bytes.pop(inode, None)
            return 0
        return int(size_bytes * left)

    def book(self, inode: int, size_bytes: int) -> None:
        if size_bytes <= 0:
            return
        for old in list(self._bytes):
            self.at(old)
        self._bytes[inode] = (size_bytes + self.at(inode), time.monotonic())

    def forget(self, inode: int) -> None:
        self._bytes.pop(inode, None)
