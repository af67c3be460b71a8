"""ssh into a machine: one constant root connection to drive it, real logins to test it."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

OPTIONS = (
    *("-F", "/dev/null"),  # nothing from this user's own configuration
    *("-o", "BatchMode=yes"),
    *("-o", "ConnectTimeout=30"),
    *("-o", "ServerAliveInterval=15"),
    *("-o", "StrictHostKeyChecking=no"),
    *("-o", "UserKnownHostsFile=/dev/null"),
    *("-o", "GlobalKnownHostsFile=/dev/null"),
    *("-o", "IdentitiesOnly=yes"),
    *("-o", "IdentityAgent=none"),
    *("-o", "LogLevel=ERROR"),
    *("-o", "KexAlgorithms=curve25519-sha256"),  # the default with sntrup761 is dear under TCG
)
SSH_FAILED = 255  # ssh's own exit status when it never ran the command


@dataclass(frozen=True, slots=True)
class Result:
    """How a command in the machine ended; `seconds` is wall time on the host, login included."""

    command: str
    status: int
    stdout: str
    stderr: str
    seconds: float


class CommandError(Exception):
    """A command in the machine ended with another status than 0, or too late."""

    def __init__(self, user: str, result: Result, why: str) -> None:
        output = f"{result.stdout[-4000:]}{result.stderr[-4000:]}"
        super().__init__(f"{user}@machine: {result.command!r} {why}\n{output}".rstrip())
        self.result = result


class Session:
    """A login that stays open: lines go in and out until `close`.

    `cgroup` is where logind put it, seen from the memory controller:
    "/user.slice/user-1000.slice/session-3.scope".
    """

    def __init__(self, user: str, command: str, process: subprocess.Popen[str], cgroup: str) -> None:
        self.user = user
        self.command = command
        self.cgroup = cgroup
        self._process = process

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._process.kill()
            self._process.communicate()

    def ask(self, line: str, *, timeout_sec: float = 60) -> str:
        """One line sent, one line of answer."""
        stdin = _pipe(self._process.stdin)
        stdin.write(line + "\n")
        stdin.flush()
        return self.readline(timeout_sec=timeout_sec)

    def readline(self, *, timeout_sec: float = 60) -> str:
        late = threading.Timer(timeout_sec, self._process.kill)
        late.start()
        try:
            line = _pipe(self._process.stdout).readline()
        finally:
            late.cancel()
        if not line:
            self._process.kill()
            _, stderr = self._process.communicate()
            raise ConnectionError(
                f"the session of {self.user} ended early or was silent too long: {self.command!r}\n{stderr}"
            )
        return line.rstrip("\n")

    def rest(self, *, timeout_sec: float = 60) -> list[str]:
        """End of input for the command, and the lines that it still wrote."""
        output, _ = self._process.communicate(timeout=timeout_sec)
        return output.splitlines()

    def abandon(self) -> None:
        """Where the machine behind it is gone, nothing is waited for."""
        self._process.kill()
        self._process.communicate()

    def close(self, *, timeout_sec: float = 60) -> None:
        """End of input for the command, then wait for the logout."""
        try:
            if not _pipe(self._process.stdin).closed:  # else `rest` has done so
                self._process.communicate(timeout=timeout_sec)
        finally:
            self._process.kill()
            self._process.wait()


class Ssh:
    """ssh to one machine on a loopback port.

    `start_control` opens the one root connection that `control` multiplexes over. Without it
    every command would be a login and so a teardown of its own.
    """

    def __init__(self, port: int, key: Path, socket: Path) -> None:
        self._socket = socket
        self._address = ("-i", str(key), "-p", str(port))
        self._master: subprocess.Popen[bytes] | None = None

    def start_control(self, *, timeout_sec: float) -> None:
        command = [
            *("setpriv", "--pdeathsig", "KILL", "--", "ssh", *OPTIONS, *self._address),
            *("-M", "-N", "-S", str(self._socket), "root@127.0.0.1"),
        ]
        self._master = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + timeout_sec
        while not self._socket.exists():
            if self._master.poll() is not None or time.monotonic() > deadline:
                self._master.kill()
                _, stderr = self._master.communicate()
                self._master = None
                raise ConnectionError(f"no root login: {stderr.decode(errors='replace').strip()}")
            time.sleep(0.05)

    def stop_control(self) -> None:
        if self._master is not None:
            self._master.kill()
            self._master.communicate()
            self._master = None
        self._socket.unlink(missing_ok=True)

    def control(self, command: str, *, data: bytes | None, timeout_sec: float) -> Result:
        # ProxyCommand: were the control connection gone, ssh would quietly log in anew.
        over = ("-S", str(self._socket), "-o", "ControlMaster=no", "-o", "ProxyCommand=false")
        return self._call("root", (*over, "root@127.0.0.1", "--", command), command, data, timeout_sec)

    def login(self, user: str, command: str, *, timeout_sec: float) -> Result:
        """A login of its own with a pseudo-session of logind behind it."""
        fresh = ("-S", "none", "-T", f"{user}@127.0.0.1", "--", command)
        return self._call(user, fresh, command, None, timeout_sec)

    def logins(
        self, user: str, commands: Sequence[str], *, parallel: int, timeout_sec: float
    ) -> list[Result]:
        with ThreadPoolExecutor(parallel) as pool:
            return list(pool.map(lambda each: self.login(user, each, timeout_sec=timeout_sec), commands))

    def session(self, user: str, command: str) -> Session:
        where = "awk -F: '/:memory:/ || !path {path = $3} END {print path}' /proc/self/cgroup"
        fresh = ("-S", "none", "-T", f"{user}@127.0.0.1", "--", f"{where}; {command}")
        process = subprocess.Popen(
            ["ssh", *OPTIONS, *self._address, *fresh],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        opened = Session(user, command, process, "")
        opened.cgroup = opened.readline()
        return opened

    def _call(
        self, user: str, arguments: Sequence[str], command: str, data: bytes | None, timeout_sec: float
    ) -> Result:
        started = time.monotonic()
        try:
            done = subprocess.run(
                ["ssh", *OPTIONS, *self._address, *arguments],
                input=b"" if data is None else data,
                capture_output=True,
                timeout=timeout_sec,
            )
        except subprocess.TimeoutExpired as error:
            late = Result(command, SSH_FAILED, _text(error.stdout), _text(error.stderr), timeout_sec)
            raise CommandError(user, late, f"did not end within {timeout_sec:g} s") from None
        return Result(
            command, done.returncode, _text(done.stdout), _text(done.stderr), time.monotonic() - started
        )


def _text(output: bytes | None) -> str:
    return (output or b"").decode(errors="replace")


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
