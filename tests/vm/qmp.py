"""A QEMU Machine Protocol client: just enough to reset, quit and ask.

https://qemu-project.gitlab.io/qemu/interop/qmp-spec.html
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class QmpError(Exception):
    """QEMU refused a command or closed the monitor."""


class Qmp:
    """One connection to QEMU's monitor on a unix socket; every wait ends after `timeout_sec`."""

    def __init__(self, path: Path, *, timeout_sec: float = 10) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(timeout_sec)
            self._socket.connect(str(path))
            self._lines = self._socket.makefile("r", encoding="utf-8")
            self._receive()  # the greeting
            self.execute("qmp_capabilities")
        except BaseException:  # whatever it was, the socket must not stay open
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._socket.close()

    def execute(self, command: str, **arguments: object) -> Any:
        """The `return` member of QEMU's answer; raises QmpError."""
        request: dict[str, object] = {"execute": command}
        if arguments:
            request["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            answer = self._receive()
            if "error" in answer:
                raise QmpError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
            # anything else is an event

    def monitor(self, line: str) -> str:
        """What the human monitor prints for `line`."""
        return str(self.execute("human-monitor-command", command_line=line))

    def _receive(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            raise QmpError("QEMU closed the monitor")
        answer: dict[str, Any] = json.loads(line)
        return answer
