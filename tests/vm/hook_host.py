"""A machine whose logouts ask the guard before the removal: what tests do to it and read of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from logindguard.model import ReclaimRecord, Source, Way
from tests.vm.host import UNIT, Host
from tests.vm.machine import wait_until

HOOK = "/usr/libexec/logindguard-hook"
ALONE = "teardown: {after: no}\nsweep: {enabled: no}\nlog_level: debug\n"
MANAGER = "org.logindguard1 /org/logindguard1 org.logindguard1.Manager"
SLICE = "/user.slice/user-1000.slice"  # alice's
PATIENT_SEC = 5
NOT_FREED = "nothing that can be freed"


@dataclass
class HookHost(Host):
    """Her slice has to stay, and what hangs below it: alice lingers."""

    def before(self, source: Source) -> list[ReclaimRecord]:
        """Records of what was reclaimed before a removal that this source announced."""
        return [
            each for each in self.records() if each.way is Way.BEFORE and each.teardowns[0].source is source
        ]

    def said(self, words: str) -> int:
        return self.machine.journal("--unit", UNIT, "--since", self.since).count(words)

    @contextmanager
    def nothing_after(self) -> Iterator[None]:
        """What the hook and stop jobs do is all that is done: no way after the removal, no sweep."""
        with self.settings(ALONE):
            self.wait_served()
            self.machine.run(f"busctl call {MANAGER} Reload")  # answers when they are in force
            self.mark()
            yield

    def wait_served(self) -> None:
        """The hook does not start the guard: it has to have its name."""
        wait_until(
            lambda: self.machine.run("busctl status org.logindguard1.Hook", check=False).status == 0,
            timeout_sec=60,
            what="the guard is on the bus",
        )

    @contextmanager
    def profile_off(self) -> Iterator[None]:
        """Logouts as without the package: sessions that are open feel it too."""
        self.machine.run("pam-auth-update --disable logindguard")
        try:
            yield
        finally:
            self.machine.run("pam-auth-update --enable logindguard")

    @contextmanager
    def no_guard(self) -> Iterator[None]:
        with self.profile_off():
            self.guard("stop")
            try:
                yield
            finally:
                self.guard("start")
                self.wait_served()

    @contextmanager
    def stand_in(self, script: str) -> Iterator[None]:
        """Another script where the hook is, or the program of that path."""
        self.machine.run(f"cp -p {HOOK} /var/tmp/hook")
        if script.startswith("/bin/"):
            self.machine.run(f"cp {script} {HOOK}")
        else:
            self.machine.run(f"cat >{HOOK}", data=f"#!/usr/lib/klibc/bin/sh\n{script}\n".encode())
        try:
            yield
        finally:
            self.machine.run(f"cp -p /var/tmp/hook {HOOK}")

    @contextmanager
    def patient_hook(self) -> Iterator[None]:
        """It waits longer than 0.2 s: an emulated machine is ten times as slow as those that is meant for."""
        self.machine.run(f"cp -p {HOOK} /var/tmp/hook; sed -i 's/KILL 0.2/KILL {PATIENT_SEC}/' {HOOK}")
        try:
            yield
        finally:
            self.machine.run(f"cp -p /var/tmp/hook {HOOK}")

    def dying(self) -> int:
        """Dying memcgs once no session of hers is left and their number stays."""
        sessions = f"ls {self.machine.memory_root}{SLICE} | grep -c session-"
        wait_until(
            lambda: self.machine.run(sessions, check=False).stdout.strip() == "0",
            timeout_sec=60,
            what="no session is left",
        )
        last = -1
        while (now := self.machine.dying(self.counted)) != last:
            last = now
            time.sleep(1)
        return now

    def held(self) -> dict[str, int]:
        """What dying memcgs hold below her slice, in KiB, with no session left."""
        whole, live = (self.machine.memory_stat(path) for path in (SLICE, f"{SLICE}/user@1000.service"))
        v2 = self.machine.system.cgroup_version == 2
        dirty, writeback = ("file_dirty", "file_writeback") if v2 else ("dirty", "writeback")
        keys = {"page cache": "file", "dirty": dirty, "under writeback": writeback, "mapped": "file_mapped"}
        return {name: max(0, whole[key] - live[key]) >> 10 for name, key in keys.items()}

    def pins(self, base: int) -> dict[str, int]:
        """What pins each of those dying beyond `base`: how many go with each step. Frees what it can."""
        # Writeback structures of inodes that are clean go when some memcg goes offline, not before.
        nudge = f"mkdir {self.machine.memory_root}/nudge && rmdir {self.machine.memory_root}/nudge"
        steps = {
            "writeback structures of clean inodes": nudge,
            "page cache that is clean": f"echo 1 >/proc/sys/vm/drop_caches; {nudge}",
            "page cache that waits for writeback": f"sync; echo 1 >/proc/sys/vm/drop_caches; {nudge}",
            "inodes and dentries": f"sync; echo 3 >/proc/sys/vm/drop_caches; {nudge}",
        }
        found: dict[str, int] = {}
        left = self.dying() - base
        for name, step in steps.items():
            self.machine.run(step, timeout_sec=180)
            found[name] = left - (left := self.dying() - base)
        return found | {NOT_FREED: left}

    @property
    def counted(self) -> str:
        """v1 counts the dying of the whole machine alone."""
        return "/user.slice" if self.machine.system.cgroup_version == 2 else "/"
