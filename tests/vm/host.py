"""A machine with the guard on it: what tests of its work do to the one and read of the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from logindguard.model import ReclaimRecord
from logindguard.record.entry import from_fields
from tests.vm.machine import Machine
from tests.vm.ssh import Session

MIB = 1 << 20
UNIT = "logindguard.service"
READ_BYTES = 4 * MIB
WRITTEN_BYTES = 64 << 10
FILES = "/var/tmp/e2e"


@dataclass
class Host:
    """The machine with the guard on it, and the time since which records count."""

    machine: Machine
    since: str = ""

    def mark(self) -> None:
        self.since = self.machine.run("date +@%s.%N").stdout.strip()

    def records(self) -> list[ReclaimRecord]:
        entries = self.machine.journal_records("--unit", UNIT, "--since", self.since)
        return [from_fields(entry) for entry in entries if "LOGINDGUARD_OUTCOME" in entry]

    def records_of(self, session: str) -> list[ReclaimRecord]:
        """Of the session scope with this name."""
        return [each for each in self.records() if session in {t.unit for t in each.teardowns}]

    def drop(self) -> int:
        """The floor: what is left when all page cache that can go is gone; v1 counts the whole machine."""
        self.machine.run("sync; echo 3 >/proc/sys/vm/drop_caches; sleep 1", timeout_sec=180)
        return self.machine.dying("/user.slice" if self.machine.system.cgroup_version == 2 else "/")

    def guard(self, verb: str) -> None:
        self.machine.run(f"systemctl {verb} {UNIT}")

    @contextmanager
    def settings(self, text: str) -> Iterator[None]:
        """Runs with these settings over its own for the length of a block; starts where it was stopped."""
        dropin = "/etc/logindguard/config.d/90-test.yaml"
        self.machine.run(f"mkdir -p $(dirname {dropin}) && cat >{dropin}", data=text.encode())
        self.guard("reload-or-restart")  # a start takes seconds under emulation
        try:
            yield
        finally:
            self.machine.run(f"rm {dropin}")
            self.guard("reload-or-restart")

    def log_in(self, user: str, count: int, *, files: str) -> None:
        commands = [
            f"cat {FILES}/{files}-{n} >/dev/null; head -c {WRITTEN_BYTES} /dev/urandom >{files}-{n}"
            for n in range(count)
        ]
        self.machine.logins(user, commands, timeout_sec=120)

    def make_files(
        self, prefix: str, count: int, size: int = READ_BYTES, *, read_before: bool = False
    ) -> None:
        """None of them in memory afterwards. Whoever is first to read one writes its access time, too."""
        read = f"cat {prefix}-* >/dev/null; sync;" if read_before else ""
        self.machine.run(
            f"mkdir -p {FILES} && cd {FILES} && for n in $(seq 0 {count - 1}); do"
            f" head -c {size} /dev/zero >{prefix}-$n; done; sync; {read}"
            f" for file in {prefix}-*; do dd status=none iflag=nocache count=0 if=$file; done",
            timeout_sec=180,
        )

    def neighbour(self, user: str, name: str, size: int = 100 * MIB) -> Session:
        hold = f"python3 /var/tmp/neighbour.py --work-dir hoard-{name} --bytes {size}"
        session = self.machine.session(user, hold)
        session.readline(timeout_sec=120)
        return session

    def stolen(self, session: Session) -> int:
        return self.machine.memory_stat(session.cgroup)["pgsteal"]

    def slice_is_gone(self, uid: int) -> bool:
        path = f"{self.machine.memory_root}/user.slice/user-{uid}.slice"
        return self.machine.run(f"test -e {path}", check=False).status != 0
