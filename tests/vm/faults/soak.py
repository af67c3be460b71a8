"""A host's day, hastened: logins, cron jobs, services and restarts of all kinds, as a seed has them."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tests.vm.faults.ground import SLICE
from tests.vm.hook_host import MANAGER
from tests.vm.host import FILES, MIB, UNIT, Host
from tests.vm.test_cron import SESSIONS

USERS = ("alice", "bob", "carol")
POOL = 24  # files that sessions read, most of them cold each time
COMMAND_SEC = 240  # for a login or a restart under emulation, with others at work
GUARD = "/usr/libexec/logindguardd"


@contextmanager
def cron_jobs(host: Host) -> Iterator[None]:
    """Each minute one of each user, in sessions: as an administrator sets it up who wants that."""
    jobs = "".join(
        f"* * * * * {user} cat {FILES}/pool-{n} >cron; head -c 100K /dev/urandom >>cron\n"
        for n, user in enumerate(USERS)
    )
    host.machine.run("cp /etc/pam.d/cron /root/pam-cron; cat >>/etc/pam.d/cron", data=SESSIONS.encode())
    host.machine.run("cat >/etc/cron.d/soak; systemctl restart cron", data=jobs.encode())
    try:
        yield
    finally:
        host.machine.run("rm /etc/cron.d/soak; mv /root/pam-cron /etc/pam.d/cron; systemctl restart cron")


class Soak:
    """`run` does what it draws, one thing after the other; `done` says how often each was done."""

    def __init__(self, host: Host, chance: random.Random) -> None:
        self._host = host
        self._chance = chance
        self.done: Counter[str] = Counter()
        self._of_users: dict[Callable[[], None], int] = {
            self.login: 10,
            self.logins_at_once: 4,
            self.terminated_session: 2,
            self.service: 4,
            self.failing_service: 1,
            self.scope: 3,
        }
        self._of_others: dict[Callable[[], None], int] = {
            self.daemon_reload: 2,
            self.daemon_reexec: 1,
            self.logind_restart: 1,
            self.journald_restart: 1,
            self.polkit_restart: 1,
            self.memory_min: 2,
            self.restore_by_hand: 2,
            self.sweep: 1,
            self.pause: 1,
            self.settings: 1,
        }
        self._of_the_guard: dict[Callable[[], None], int] = {self.guard_restart: 1, self.guard_kill: 2}

    def run(self, until: float, *, guard_until: float, look: Callable[[], None]) -> None:
        """Each act once, as they come, then at random. Times are of the monotonic clock.

        After `guard_until` the guard's own process is left alone, but for those that come once.
        """
        acts = self._of_users | self._of_others | self._of_the_guard
        once = self._chance.sample([*acts], len(acts))
        while time.monotonic() < until:
            if not once and time.monotonic() >= guard_until:
                acts = self._of_users | self._of_others
            act = once.pop() if once else self._chance.choices([*acts], weights=[*acts.values()])[0]
            act()
            self.done[act.__name__] += 1
            look()

    def _root(self, command: str) -> None:
        """What comes of it is not judged here: it may meet a guard or a bus that is just not there."""
        self._host.machine.run(command, check=False, timeout_sec=COMMAND_SEC)

    def _reads_and_writes(self) -> str:
        """What a session does: reads something cold, and may write, map or make a tmpfs file."""
        file = f"{FILES}/pool-{self._chance.randrange(POOL)}"
        reads = f"dd status=none iflag=nocache count=0 if={file}; cat {file} >/dev/null"
        writes = f"head -c {self._chance.randrange(1, MIB)} /dev/urandom >soak-{self._chance.randrange(40)}"
        temporary = "head -c 300K /dev/zero >$XDG_RUNTIME_DIR/soak; rm $XDG_RUNTIME_DIR/soak"
        program = f'python3 -c \'import json, asyncio; open("{file}", "rb").read()\''
        return "; ".join(self._chance.sample([reads, reads, writes, temporary, program], 2))

    # What users do

    def login(self) -> None:
        self._host.machine.login(
            self._chance.choice(USERS), self._reads_and_writes(), check=False, timeout_sec=COMMAND_SEC
        )

    def logins_at_once(self) -> None:
        jobs = [(self._chance.choice(USERS), self._reads_and_writes()) for _ in range(4)]
        with ThreadPoolExecutor(len(jobs)) as pool:
            for user, command in jobs:
                pool.submit(self._host.machine.login, user, command, check=False, timeout_sec=COMMAND_SEC)

    def terminated_session(self) -> None:
        user = self._chance.choice(USERS)
        with self._host.machine.session(user, f"{self._reads_and_writes()}; echo open; cat") as session:
            session.readline(timeout_sec=COMMAND_SEC)
            number = session.cgroup.rpartition("session-")[2].removesuffix(".scope")
            self._root(f"loginctl terminate-session {number}")
            session.close(timeout_sec=COMMAND_SEC)

    def service(self) -> None:
        file = f"{FILES}/pool-{self._chance.randrange(POOL)}"
        self._root(f"systemd-run --quiet --wait --collect cat {file} >/dev/null")

    def failing_service(self) -> None:
        self._root("systemd-run --quiet --wait --collect false")

    def scope(self) -> None:
        file = f"{FILES}/pool-{self._chance.randrange(POOL)}"
        slice_ = self._chance.choice(("system.slice", SLICE))
        self._root(f"systemd-run --quiet --scope --slice={slice_} cat {file} >/dev/null")

    # What administrators and the system do

    def daemon_reload(self) -> None:
        self._root("systemctl daemon-reload")

    def daemon_reexec(self) -> None:
        self._root("systemctl daemon-reexec")

    def logind_restart(self) -> None:
        self._root("systemctl restart systemd-logind")

    def journald_restart(self) -> None:
        self._root("systemctl restart systemd-journald")

    def polkit_restart(self) -> None:
        self._root("systemctl restart polkit")

    def memory_min(self) -> None:
        """Of a unit that the guard shields, now and then in a window: it has 16M in the end."""
        for mib in (self._chance.randrange(1, 200), 16):
            self._root(f"systemctl set-property --runtime lgfault-bare.service MemoryMin={mib}M")

    def restore_by_hand(self) -> None:
        self._root(f"{GUARD} --restore")

    def sweep(self) -> None:
        self._root("logindguardctl sweep")

    def pause(self) -> None:
        self._root(f"busctl call {MANAGER} Pause t 3000000")

    def settings(self) -> None:
        self._root(f"systemctl reload {UNIT}")

    # What happens to the guard

    def guard_restart(self) -> None:
        self._root(f"systemctl restart {UNIT}")

    def guard_kill(self) -> None:
        self._root(f"systemctl kill --signal=KILL {UNIT}; sleep 2; systemctl start {UNIT}")
