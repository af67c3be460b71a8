"""The real daemon as a plain process beside the demo, and what it tells."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from logindguard.model import Mode, ReclaimRecord
from logindguard.record.entry import from_fields
from logindguard.record.journal import Kind

CHECKOUT = Path(__file__).parents[2]
CLK_TCK = os.sysconf("SC_CLK_TCK")
START_SEC = 30.0
STOP_SEC = 30.0


class GuardFailed(Exception):
    """It did not start, or ended by itself; its own words."""


class Guard:
    """Runs for the length of a block with `settings` (YAML), which must confine it by `roots`.

    Unless it is given a bus, the cgroup tree alone tells it of teardowns, and a guard that is installed
    on this machine keeps its name there. It ends with the demo, however that ends.
    """

    def __init__(
        self,
        settings: str,
        directory: Path,
        *,
        program: Sequence[str] = ("-m", "logindguard"),
        bus_address: str | None = None,
        end_sec: float = STOP_SEC,
    ) -> None:
        self._directory = directory
        self._end_sec = end_sec
        directory.mkdir()
        config = directory / "config.yaml"
        config.write_text(settings)
        self._said = directory / "said"
        with self._said.open("w") as said:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "TERM", sys.executable, *program),
                    *("--config", str(config), "--runtime-directory", str(directory / "run")),
                    *("--bus-address", bus_address or f"unix:path={directory}/no-bus", "--json"),
                ],
                cwd=CHECKOUT,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
            )
        self._entries: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(self._end_sec)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(STOP_SEC)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._entries.append(json.loads(line))

    @property
    def pid(self) -> int:
        return self._process.pid

    def mode(self) -> tuple[Mode, str]:
        """The mode that it works in and why; from then on it hears of teardowns. Raises GuardFailed."""
        deadline = time.monotonic() + START_SEC
        while time.monotonic() < deadline:
            for entry in list(self._entries):
                if entry.get("MESSAGE_ID") == Kind.MODE:
                    return Mode(entry["LOGINDGUARD_MODE"]), entry["LOGINDGUARD_REASON"]
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        raise GuardFailed(self.said() or f"The guard did not start within {START_SEC:.0f} s.")

    @property
    def records(self) -> list[ReclaimRecord]:
        return [from_fields(entry) for entry in self._told()]

    @property
    def messages(self) -> list[str]:
        """All that it told, in order."""
        return [entry["MESSAGE"] for entry in list(self._entries)]

    def sentences(self) -> tuple[str, ...]:
        """Of the records, the one with the largest release first."""
        told = sorted(self._told(), key=lambda entry: -int(entry["LOGINDGUARD_FREED_BYTES"]))
        return tuple(entry["MESSAGE"] for entry in told)

    def _told(self) -> list[dict[str, Any]]:
        return [entry for entry in list(self._entries) if "LOGINDGUARD_OUTCOME" in entry]

    def said(self) -> str:
        return self._said.read_text().strip()

    def cpu_usec(self) -> int:
        """CPU time of the process so far; raises GuardFailed when it has ended."""
        try:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        except OSError as error:
            raise GuardFailed(self.said()) from error
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) * 1_000_000 // CLK_TCK
