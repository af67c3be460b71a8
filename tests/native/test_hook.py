"""The hook on this machine's kernel: in a cgroup as a session's, on a bus of ours, against the daemon."""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from logindguard.kernel.cgroupfs import detect
from tests.bus.conftest import Daemon as Bus
from tests.conftest import Tell
from tests.native.launcher import CHECKOUT, Launcher, Run

pytestmark = pytest.mark.native

HOOK = CHECKOUT / "hook" / "logindguard-hook"
DEADLINE_SEC = 0.3  # the hook's own 0.2 s, and 0.1 s to notice and to end
# What a busy machine may add to that, in a test that shall not fail for it; the figure is told.
SLACK_SEC = 30.0
NOBODY = 65534
GAVE = {"skipped", "released", "partial", "unchanged"}  # an answer that is no error
FLOOD = (Path(__file__).parent / "flood.py").read_text()  # that user need not be able to read the checkout


class Session:
    """A session's cgroup, and ways to close the session."""

    def __init__(self, directory: Path, bus_address: str, scripts: Path) -> None:
        self.directory = directory
        self.address = bus_address
        self.scripts = scripts
        directory.mkdir()
        self.hook()  # before there are threads: what a fork holds open for writing cannot be run

    def leader(self, script: str, *, uid: int = 0, **environment: str) -> subprocess.Popen[str]:
        """A process of the cgroup whose parent is not in it, as sshd's is not."""

        def enter() -> None:
            (self.directory / "cgroup.procs").write_text("0")
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)

        return subprocess.Popen(
            ["/bin/sh", "-c", f"{script}\nexit $?"],
            preexec_fn=enter,  # no other thread holds a lock that it needs
            env={"HOOK": str(self.hook()), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def hook(self, kind: str = "hook", **changes: str) -> Path:
        """The hook with our bus for the system's, and what else is changed; all of that must be there."""
        text = HOOK.read_text()
        for old, new in {"--system": f"--bus={self.address}", **changes}.items():
            assert old in text
            text = text.replace(old, new)
        hook = self.scripts / f"{kind}-{self.directory.name}"
        if not hook.exists() or hook.read_text() != text:
            hook.write_text(text)
            hook.chmod(0o755)
        return hook

    def close(self) -> float:
        """As PAM does; how long it took. It must say nothing and not fail."""
        started = time.monotonic()
        status, said = ended(self.leader('"$HOOK"', PAM_TYPE="close_session"))
        assert (status, said) == (0, "")
        return time.monotonic() - started

    def ask(self, argument: str = "", *, before: str = "", after: str = "", uid: int = 0) -> str:
        """What the daemon answers to a hook that lets us see it, and has time."""
        quiet = dict.fromkeys((" >/dev/null 2>&1", "exec 2>/dev/null"), "")
        loud = self.hook("loud", **quiet, **{"KILL 0.2": "KILL 60", "--print-reply": "--print-reply=literal"})
        script = f'{before}\nPAM_TYPE=close_session "{loud}" {argument}\n{after}'
        _, said = ended(self.leader(script, uid=uid))
        return said.strip()

    def remove(self) -> None:
        deadline = time.monotonic() + 10
        while True:
            try:
                self.directory.rmdir()
                return
            except OSError:
                for pid in (self.directory / "cgroup.procs").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
                assert time.monotonic() < deadline
                time.sleep(0.02)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = process.communicate(timeout=90)
    return process.returncode, said


Open = Callable[[str], Session]


@pytest.fixture
def bus(short_dir: Path) -> Iterator[Bus]:
    """With no more allowed than a system bus allows."""
    short_dir.chmod(0o711)  # ordinary users connect too
    bus = Bus(short_dir, policy=CHECKOUT / "dbus" / "org.logindguard1.conf", quiet=True)
    yield bus
    bus.kill()


@pytest.fixture
def open_session(root: str, bus: Bus, short_dir: Path) -> Iterator[Open]:
    hierarchy = detect()
    assert hierarchy is not None
    sessions = []

    def opened(name: str) -> Session:
        session = Session(hierarchy.mount / root.strip("/") / name, bus.address, short_dir)
        sessions.append(session)
        return session

    yield opened
    for session in sessions:
        session.remove()


@pytest.fixture
def session(open_session: Open) -> Session:
    return open_session("session-7.scope")


@pytest.fixture
def guard(launcher: Launcher, bus: Bus) -> Run:
    run = launcher.start("--bus-address", bus.address, "--json")
    run.wait_told("READY=1")
    bus.wait_name("org.logindguard1.Hook")
    return run


def test_the_daemon_answers_for_what_is_ending(session: Session, guard: Run) -> None:
    answer = session.ask()
    assert answer in GAVE, answer


def test_it_waits_for_a_child_of_the_leader_that_exits(session: Session, guard: Run) -> None:
    assert session.ask(before="sleep 0.08 &") in GAVE


def test_what_a_user_sets_does_not_reach_what_root_runs(
    session: Session, guard: Run, short_dir: Path
) -> None:
    """pam_env may read ~/.pam_environment and a crontab may set anything: LD_PRELOAD would be root's code."""
    heeded, hook = short_dir / "heeded", short_dir / "by-the-hook"
    answer = session.ask(
        before=f"LD_DEBUG=files LD_DEBUG_OUTPUT={heeded} /bin/true\n"
        f"export LD_DEBUG=files LD_DEBUG_OUTPUT={hook} IFS=e A='x\nexport B=1' C=\\' 2>/dev/null"
    )
    assert answer in GAVE
    assert len(list(short_dir.glob("heeded.*"))) == 1  # glibc does heed it
    assert list(short_dir.glob("by-the-hook.*")) == []


def test_a_session_that_somebody_stays_in_is_live(session: Session, guard: Run) -> None:
    answer = session.ask(before="(sleep 20 >/dev/null &)")  # removing the session ends it
    assert "Other processes are still in the cgroup" in answer


def test_a_unit_is_reclaimed_where_the_settings_cover_it(open_session: Open, guard: Run) -> None:
    answer = open_session("other.service").ask("stop-post")
    assert "other.service is no session or unit that the settings cover" in answer
    assert open_session("cron-alice-1.service").ask("stop-post") in GAVE


def test_ordinary_users_are_refused(session: Session, guard: Run) -> None:
    assert session.ask(uid=NOBODY).startswith("Error org.freedesktop.DBus.Error.AccessDenied")
    assert guard.process.poll() is None


def test_a_call_from_outside_any_session_is_refused(bus: Bus, guard: Run) -> None:
    call = [
        *("busctl", f"--address={bus.address}", "call", "org.logindguard1.Hook"),
        *("/org/logindguard1", "org.logindguard1.Hook", "ReclaimEnding"),
    ]
    done = subprocess.run(call, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode != 0
    assert "Other processes are still in the cgroup" in done.stderr


@pytest.mark.parametrize(
    "fault", ["healthy", "stopped", "SIGSTOPped", "bus SIGSTOPped", "bus killed", "bus absent"]
)
def test_no_fault_holds_up_a_logout(
    fault: str, session: Session, launcher: Launcher, bus: Bus, request: pytest.FixtureRequest, tell: Tell
) -> None:
    guard: Run | None = None
    if fault not in ("stopped", "bus absent"):
        guard = request.getfixturevalue("guard")
        assert guard is not None
    match fault:
        case "SIGSTOPped" if guard is not None:
            guard.process.send_signal(signal.SIGSTOP)
        case "bus SIGSTOPped":
            bus.freeze()
        case "bus killed":
            bus.kill()
        case "bus absent":
            session.address = "unix:path=/nonexistent/bus"
    try:
        took = [session.close() for _ in range(5)]
    finally:
        bus.thaw() if fault == "bus SIGSTOPped" else None
        if guard is not None:
            guard.process.send_signal(signal.SIGCONT)
    tell(f"a logout of 5 took up to {max(took) * 1000:.0f} ms")
    assert max(took) < DEADLINE_SEC + SLACK_SEC


def test_two_hundred_logouts_at_once(open_session: Open, guard: Run, tell: Tell) -> None:
    sessions = [open_session(f"session-{number}.scope") for number in range(200)]
    with ThreadPoolExecutor(200) as threads:
        began = time.monotonic()
        took = list(threads.map(lambda session: session.close(), sessions))
    tell(
        f"200 logouts at once took {time.monotonic() - began:.1f} s, each up to {max(took) * 1000:.0f} ms"
        " with the start of its leader"
    )
    assert guard.process.poll() is None
    assert sessions[0].ask() in GAVE


def test_a_flood_of_calls_does_not_reach_the_hook(session: Session, guard: Run, bus: Bus, tell: Tell) -> None:
    """One user fills the queue that the bus keeps for the public name, as fast as the bus takes it."""
    bus.wait_name("org.logindguard1")
    flood = subprocess.Popen(
        [
            *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
            *("/usr/bin/python3", "-W", "ignore", "-c", FLOOD, "pour", bus.address, "20", "300"),
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert flood.stdout is not None
        assert flood.stdout.readline()
        ask = ["busctl", f"--address={bus.address}", "--timeout=2", "call", "org.logindguard1"]
        ask += ["/org/logindguard1", "org.freedesktop.DBus.Peer", "Ping"]
        deadline = time.monotonic() + 120
        while subprocess.run(ask, capture_output=True, check=False).returncode == 0:
            assert time.monotonic() < deadline, "the flood does not fill the queue"
            time.sleep(0.1)
        took = []
        for _ in range(5):
            began = time.monotonic()
            assert session.ask() in GAVE
            took.append(time.monotonic() - began)
        for verb in ("pause", "resume"):  # root's other calls have that road too
            ran = subprocess.run(
                [sys.executable, "-m", "logindguard.ctl", verb],
                cwd=CHECKOUT,
                env={"PATH": "/usr/bin:/bin", "DBUS_SYSTEM_BUS_ADDRESS": bus.address},
                capture_output=True,
                text=True,
                check=False,
                timeout=90,
            )
            assert ran.returncode == 0, ran.stderr
    finally:
        flood.kill()
        flood.communicate()
    tell(f"in a flood the hook has its answer after {statistics.median(took) * 1000:.0f} ms (median of 5)")
    assert guard.process.poll() is None


class Ear:
    """A bus address where connections are counted and nobody answers."""

    def __init__(self, path: Path) -> None:
        self.address = f"unix:path={path}"
        self.heard = 0
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen(16)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.heard += 1
            connection.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


def test_it_leaves_before_any_contact_with_the_bus(open_session: Open, short_dir: Path) -> None:
    ear = Ear(short_dir / "ear")
    session, service = open_session("session-7.scope"), open_session("user@1000.service")
    session.address = service.address = ear.address
    try:
        for leader in (
            service.leader('"$HOOK"', PAM_TYPE="close_session"),  # systemd-user, cron of Debian, a service
            session.leader('"$HOOK"', PAM_TYPE="open_session"),
            session.leader('"$HOOK"'),
            session.leader(
                'sh -c "\\"$HOOK\\"; exit 0"; exit 0', PAM_TYPE="close_session"
            ),  # sudo, su: not the leader
            session.leader('sh -c "sh -c \\"\\$HOOK; exit 0\\"; exit 0"; exit 0', PAM_TYPE="close_session"),
        ):
            assert ended(leader) == (0, "")
        outside = subprocess.run(
            [session.hook()],
            env={"PAM_TYPE": "close_session"},
            check=False,
            timeout=30,
        )
        assert outside.returncode == 0
        assert ear.heard == 0
        assert ended(session.leader('"$HOOK"', PAM_TYPE="close_session")) == (0, "")  # and this one does ask
        assert ear.heard == 1
    finally:
        ear.close()


def test_what_it_adds_to_a_logout(session: Session, guard: Run, tell: Tell) -> None:
    """Median at most 30 ms, beside the same leader that runs nothing."""

    def median_msec(script: str, times: int = 40) -> float:
        took = []
        for _ in range(times):
            started = time.monotonic()
            ended(session.leader(script, PAM_TYPE="close_session"))
            took.append(time.monotonic() - started)
        return statistics.median(took) * 1000

    median_msec('"$HOOK"', 5)
    added = median_msec('"$HOOK"') - median_msec(":")
    early = median_msec('"$HOOK"; PAM_TYPE=open_session "$HOOK"') - median_msec('"$HOOK"')
    tell(f"median added: {added:.1f} ms asking the guard, {early:.1f} ms where it has not to be asked")
    assert added < 1_000  # on a machine that does something else meanwhile; the figure is told
