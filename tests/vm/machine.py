"""A booted machine: QEMU, its console, and ssh into it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.vm.accel import KVM, accelerator
from tests.vm.image import RigError, image
from tests.vm.qmp import Qmp
from tests.vm.ssh import CommandError, Result, Session, Ssh
from tests.vm.system import System

T = TypeVar("T")

BOOT_TIMEOUT_SEC = 300  # 16 s on two idle cores, 90 s seen on busy ones
COMMAND_TIMEOUT_SEC = 60
TAIL_LINES = 60


def wait_until(predicate: Callable[[], T], *, timeout_sec: float, what: str, every_sec: float = 0.25) -> T:
    """The first true value of `predicate`; raises TimeoutError that names `what` was waited for."""
    deadline = time.monotonic() + timeout_sec
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_sec:g} s: {what} (last seen: {value!r})")
        time.sleep(every_sec)


class Machine:
    """One system under QEMU, as a context manager.

    Disk and swap are overlays that QEMU unlinks as it opens them, the only port is a loopback one
    that QEMU picks, and setpriv(1) has the kernel kill QEMU with the thread that started it: it never
    outlives this process. The guest reaches nothing (`restrict=on`).
    """

    def __init__(self, system: System, *, told: Callable[[str], None] = lambda text: None) -> None:
        self.system = system
        self.boot_seconds = 0.0
        self.accel = ""
        self._told = told
        self._directory = Path()
        self._qemu: subprocess.Popen[bytes] | None = None
        self._ssh: Ssh | None = None
        self._port = 0

    def __enter__(self) -> Self:
        found = image(self.system.recipe, told=self._told)
        self.accel = accelerator(self.system, found)
        self._told(f"booting {self.system.name} under {'KVM' if self.accel == KVM else 'TCG (no KVM here)'}")
        self._directory = Path(tempfile.mkdtemp(prefix="lgvm-"))
        try:
            key = shutil.copy(found.key, self._directory / "key")  # the image may be replaced meanwhile
            started = time.monotonic()
            self._start(found.disk, found.swap, found.kernel, found.initrd)
            self._ssh = Ssh(self._port, Path(key), self._directory / "ssh")
            self._wait_booted()
            self.boot_seconds = time.monotonic() - started
        except BaseException:  # an interrupt too must not leave QEMU behind
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    # Commands

    def run(
        self,
        command: str,
        *,
        user: str = "root",
        check: bool = True,
        data: bytes | None = None,
        timeout_sec: float = COMMAND_TIMEOUT_SEC,
    ) -> Result:
        """Run a shell command over the one root connection: no login, no teardown.

        Another `user` comes by runuser(1), which opens no session either. Raises CommandError
        when it is late, or fails under `check`.
        """
        whole = command if user == "root" else f"runuser -u {user} -- sh -c {shlex.quote(command)}"
        result = self._connection.control(whole, data=data, timeout_sec=timeout_sec)
        return self._checked(user, result) if check else result

    def login(
        self, user: str, command: str, *, check: bool = True, timeout_sec: float = COMMAND_TIMEOUT_SEC
    ) -> Result:
        """A real login over ssh that runs one command and logs out."""
        result = self._connection.login(user, command, timeout_sec=timeout_sec)
        return self._checked(user, result) if check else result

    def logins(
        self,
        user: str,
        commands: Sequence[str],
        *,
        parallel: int = 4,
        timeout_sec: float = COMMAND_TIMEOUT_SEC,
    ) -> list[Result]:
        """One login for each command, `parallel` at a time; each must succeed."""
        results = self._connection.logins(user, commands, parallel=parallel, timeout_sec=timeout_sec)
        return [self._checked(user, result) for result in results]

    def session(self, user: str, command: str) -> Session:
        """A login that stays: `command` must end when its input does."""
        return self._connection.session(user, command)

    # Files

    def put(self, local: Path, remote: str, *, mode: int = 0o644) -> None:
        where = shlex.quote(remote)
        self.run(f"cat > {where} && chmod {mode:o} {where}", data=local.read_bytes())

    def read(self, path: str) -> str:
        return self.run(f"cat {shlex.quote(path)}").stdout

    def install_deb(self, package: Path) -> None:
        """Install a package whose dependencies are all in the image."""
        remote = f"/var/tmp/{package.name}"
        self.put(package, remote)
        self.run(f"DEBIAN_FRONTEND=noninteractive dpkg --install {remote} && rm {remote}", timeout_sec=180)

    # Cgroups: paths as everywhere in logindguard, "/user.slice/user-1000.slice"

    @property
    def memory_root(self) -> str:
        return "/sys/fs/cgroup" if self.system.cgroup_version == 2 else "/sys/fs/cgroup/memory"

    def cgroup_stat(self, path: str) -> dict[str, int]:
        """cgroup.stat, v2 only."""
        return self._keyed(path, "cgroup.stat")

    def memory_stat(self, path: str) -> dict[str, int]:
        """memory.stat of the whole subtree, bytes and event counts; the names are v2's.

        v1 has no pgsteal for each cgroup.
        """
        stat = self._keyed(path, "memory.stat")
        if self.system.cgroup_version == 2:
            return stat
        whole = {key.removeprefix("total_"): value for key, value in stat.items() if key.startswith("total_")}
        return whole | {"file": whole["cache"], "anon": whole["rss"], "file_mapped": whole["mapped_file"]}

    def dying(self, path: str = "/") -> int:
        """Dying descendants of `path`; v1 only knows them for the whole hierarchy ("/")."""
        if self.system.cgroup_version == 2:
            return self.cgroup_stat(path)["nr_dying_descendants"]
        if path != "/":
            raise ValueError(f"cgroup v1 does not count the dying below {path}")
        line = f"awk '$1 == \"memory\" {{print $3}}' /proc/cgroups; find {self.memory_root} -type d | wc -l"
        counted, directories = self.run(line).stdout.split()
        return int(counted) - int(directories)

    def _keyed(self, path: str, name: str) -> dict[str, int]:
        text = self.read(f"{self.memory_root}{path.rstrip('/')}/{name}")
        return {key: int(value) for key, value in (line.split() for line in text.splitlines())}

    # Logs

    def journal(self, *arguments: str) -> str:
        command = shlex.join(("journalctl", "--no-pager", "--output=short-monotonic", *arguments))
        return self.run(command, check=False).stdout

    def journal_records(self, *arguments: str) -> list[dict[str, Any]]:
        """Journal entries with all their fields, oldest first; a field sent twice is a list."""
        command = shlex.join(("journalctl", "--no-pager", "--output=json", "--all", *arguments))
        return [json.loads(line) for line in self.run(command).stdout.splitlines()]

    def console(self) -> str:
        """What the machine wrote to its serial console since it was first started."""
        try:
            return (self._directory / "console").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def report(self) -> str:
        """The ends of journal and console, for a test that failed."""
        try:
            journal = self.journal(f"--lines={TAIL_LINES}")
        except CommandError as error:
            journal = f"(the machine does not answer: {error})"
        return f"--- journal ---\n{journal}\n--- console ---\n{_tail(self.console())}"

    # Power

    def reset(self) -> None:
        """Pull the plug and boot again: what was not written to disk is lost, the disk stays."""
        self._connection.stop_control()
        with Qmp(self._directory / "qmp") as qmp:
            qmp.execute("system_reset")
        self._wait_booted()

    def _start(self, disk: Path, swap: Path, kernel: Path, initrd: Path) -> None:
        append = ["root=/dev/vda", "rw", "console=ttyS0", "net.ifnames=0", *self.system.kernel_arguments]
        if self.accel != KVM:
            append.append("mitigations=off")  # dear to emulate, of no use there
        command = [
            *("setpriv", "--pdeathsig", "KILL", "--", "qemu-system-x86_64"),
            *("-machine", "q35", "-accel", self.accel, "-cpu", "host" if self.accel == KVM else "max"),
            *("-smp", str(self.system.cpus), "-m", f"{self.system.memory_mib}M"),
            *("-display", "none", "-nodefaults", "-serial", f"file:{self._directory / 'console'}"),
            *("-qmp", f"unix:{self._directory / 'qmp'},server=on,wait=off"),
            *("-kernel", str(kernel), "-initrd", str(initrd), "-append", " ".join(append)),
            *("-drive", f"file={disk},format=raw,if=virtio,cache=unsafe,snapshot=on"),
            *("-drive", f"file={swap},format=raw,if=virtio,cache=unsafe,snapshot=on"),
            *("-netdev", "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-:22"),
            *("-device", "virtio-net-pci,netdev=net", "-device", "virtio-rng-pci"),
        ]
        with (self._directory / "qemu").open("wb") as log:
            self._qemu = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(
            lambda: self._alive() and (self._directory / "qmp").exists(),
            timeout_sec=10,
            what="QEMU opens its monitor",
            every_sec=0.05,
        )
        with Qmp(self._directory / "qmp") as qmp:
            forward = re.search(r"HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)", qmp.monitor("info usernet"))
        if forward is None:
            raise RigError("QEMU does not tell the port that it forwards to ssh")
        self._port = int(forward[1])

    def _wait_booted(self) -> None:
        try:
            deadline = time.monotonic() + BOOT_TIMEOUT_SEC
            wait_until(self._sshd_answers, timeout_sec=BOOT_TIMEOUT_SEC, what="sshd answers")
            self._connection.start_control(timeout_sec=deadline - time.monotonic())
            left_sec = deadline - time.monotonic()
            # It fails for "degraded": that is for the tests to judge.
            self.run("systemctl is-system-running --wait", check=False, timeout_sec=left_sec)
        except (TimeoutError, ConnectionError, CommandError) as error:
            raise RigError(
                f"{self.system.name} did not boot: {error}\n--- console ---\n{_tail(self.console())}"
            ) from error

    def _sshd_answers(self) -> bool:
        self._alive()
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def _alive(self) -> bool:
        assert self._qemu is not None
        if self._qemu.poll() is None:
            return True
        raise RigError(f"QEMU ended: {(self._directory / 'qemu').read_text(errors='replace').strip()}")

    @property
    def _connection(self) -> Ssh:
        assert self._ssh is not None, "the machine is not running"
        return self._ssh

    @staticmethod
    def _checked(user: str, result: Result) -> Result:
        if result.status != 0:
            raise CommandError(user, result, f"ended with status {result.status}")
        return result

    def _stop(self) -> None:
        """The disk is thrown away: there is nothing to shut down in order."""
        if self._ssh is not None:
            self._ssh.stop_control()
            self._ssh = None
        if self._qemu is not None:
            self._qemu.kill()
            self._qemu.wait()
            self._qemu = None
        shutil.rmtree(self._directory)


def _tail(text: str) -> str:
    return "\n".join(text.splitlines()[-TAIL_LINES:])
