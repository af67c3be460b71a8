"""Keeps what is done in bursts within a share of one CPU, in every single second."""

from __future__ import annotations

from collections import deque

SEC = 1_000_000
# Measured on 200,000 dying memcgs: bursts of 6 to 13 ms at random, and one that was 1.3 times as large as
# any of the ten seconds before it came as the second of its second: 21 ms of 20.
LATELY_USEC = 60 * SEC
GROWTH = 1.25


class Pace:
    """Pure: time is an argument. The next burst is taken to be larger than any lately by GROWTH."""

    def __init__(self) -> None:
        self._bursts: deque[tuple[int, int]] = deque()  # when it ended, its CPU time

    def rest_usec(self, cpu_usec: int, share_percent: float, now_usec: int) -> int:
        """Book a burst that ends now; how long to rest before the next one.

        A tenth of a second's share is kept for a burst that is larger than all before it. One that is
        larger than the share itself is made up for afterwards.
        """
        share_usec = share_percent * SEC / 100
        while self._bursts and self._bursts[0][0] < now_usec - LATELY_USEC:
            self._bursts.popleft()
        if cpu_usec > 0:
            self._bursts.append((now_usec, cpu_usec))
        largest_usec = max((cpu for _, cpu in self._bursts), default=0)
        rest_usec = max(0, int(cpu_usec * SEC / share_usec) - cpu_usec)
        used_usec = 0
        for ended_usec, used in reversed(self._bursts):
            used_usec += used
            if used_usec + GROWTH * largest_usec > 0.9 * share_usec:
                # It fits once this one is a second old at its end.
                return max(rest_usec, ended_usec + SEC - largest_usec - now_usec)
        return rest_usec
