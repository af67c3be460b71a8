"""The daemon as a plain process, and its ends: what it tells its service manager, people and programs."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest

CHECKOUT = Path(__file__).parents[2]
DEADLINE_SEC = 60.0


@dataclass
class Run:
    """One running daemon and what it told its service manager, on stderr and as JSON."""

    process: subprocess.Popen[str]
    manager: socket.socket | None
    told: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)  # lines on stderr so far
    entered: list[str] = field(default_factory=list)  # lines on stdout, entries with --json

    def __post_init__(self) -> None:
        assert self.process.stderr is not None
        assert self.process.stdout is not None
        pairs = ((self.process.stderr, self.said), (self.process.stdout, self.entered))
        self._readers = [threading.Thread(target=self._read, args=pair) for pair in pairs]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: IO[str], lines: list[str]) -> None:
        for line in stream:
            lines.append(line)

    @property
    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.entered]

    def wait_entry(self, **values: str) -> dict[str, Any]:
        """The first entry that has these values."""
        deadline = time.monotonic() + DEADLINE_SEC
        while True:
            for entry in self.entries:
                if values.items() <= entry.items():
                    return entry
            assert time.monotonic() < deadline, f"no entry has {values}, there are only {self.entries}"
            time.sleep(0.05)

    def wait_said(self, words: str) -> None:
        deadline = time.monotonic() + DEADLINE_SEC
        while not any(words in line for line in self.said):
            assert time.monotonic() < deadline, f"{words!r} was not said, only {self.said}"
            time.sleep(0.05)

    def wait_told(self, words: str) -> None:
        deadline = time.monotonic() + DEADLINE_SEC
        assert self.manager is not None
        while not any(words in line for line in self.told):
            self.manager.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                self.told += self.manager.recv(4096).decode().splitlines()
            except TimeoutError:
                pytest.fail(f"{words} was not told in {DEADLINE_SEC} s, only {self.told}")

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> tuple[int, str]:
        self.process.wait(timeout=DEADLINE_SEC)
        for reader in self._readers:
            reader.join(DEADLINE_SEC)
        return self.process.returncode, "".join(self.said)


class Launcher:
    def __init__(self, directory: Path, root: str) -> None:
        self.directory = directory
        self.config = directory / "config.yaml"
        self.config.write_text(f"roots: [{root}]\n")
        self.runs: list[Run] = []

    def start(self, *arguments: str, **environment: str) -> Run:
        path = self.directory / f"notify-{len(self.runs)}"
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        manager.bind(str(path))
        run = Run(launch(self.directory, *arguments, NOTIFY_SOCKET=str(path), **environment), manager)
        self.runs.append(run)
        return run

    def close(self) -> None:
        for run in self.runs:
            if run.manager is not None:
                run.manager.close()
            if run.process.poll() is None:
                run.process.terminate()  # a clean end tells what it covered
                try:
                    run.process.wait(5)
                except subprocess.TimeoutExpired:  # it was stopped, say
                    run.process.kill()
            run.ended()
            for stream in (run.process.stdout, run.process.stderr):
                assert stream is not None
                stream.close()


def launch(directory: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    given = [
        *("--config", str(directory / "config.yaml")),
        *("--runtime-directory", str(directory / "run")),
        *arguments,
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "logindguard", *given],
        cwd=CHECKOUT,
        env={"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
