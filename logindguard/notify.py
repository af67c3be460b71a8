"""What the service manager is told: ready, status, watchdog, reloading (sd_notify(3))."""

from __future__ import annotations

import asyncio
import os
import time

from sdnotify import SystemdNotifier


class Notifier:
    """Says nothing where NOTIFY_SOCKET is not set."""

    def __init__(self) -> None:
        self._notifier = SystemdNotifier()
        self._status = ""

    def ready(self) -> None:
        self._notifier.notify("READY=1")

    def reloading(self) -> None:
        """Follow with `ready`. The time lets Type=notify-reload (253+) tell it from an older one."""
        self._notifier.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._notifier.notify("STOPPING=1")

    def status(self, text: str) -> None:
        if text != self._status:
            self._status = text
            self._notifier.notify(f"STATUS={text}")

    async def watchdog(self) -> None:
        """Ping at half of WatchdogSec from the event loop: a loop that hangs is restarted."""
        interval_usec = int(os.environ.get("WATCHDOG_USEC", "0"))
        if interval_usec <= 0 or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
            return
        while True:
            self._notifier.notify("WATCHDOG=1")
            await asyncio.sleep(interval_usec / 2e6)
