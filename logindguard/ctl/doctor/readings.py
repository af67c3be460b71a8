"""All that the checks know of this host, read once, here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...kernel.cgroupfs import Hierarchy, KernelError, detect
from ...kernel.features import Features, look, version_of
from ...kernel.observe import ObserveBackend
from ...kernel.pressure import some_percent
from ..client import Record
from ..roots import Roots
from .conf import is_true, pam_session, read_text, setting
from .logins import Logins

STACKS = ("common-session", "sshd", "login", "cron", "crond", "systemd-user")


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """Plain values; None where something could not be read."""

    release: str
    hierarchy: Hierarchy | None
    features: Features | None
    command_line: tuple[str, ...]
    dying: int | None
    sessions_have_memcgs: bool | None
    pressure: bool
    in_container: bool
    pam: dict[str, tuple[str, ...]]  # session lines by stack
    pam_profile: bool  # the hook's profile is installed
    cron: frozenset[str]  # "cron", "cronie", "systemd-cron"
    lingering: tuple[str, ...]
    kill_user_processes: bool
    polkit: bool
    journal_storage: str
    journal_on_disk: bool
    installed: bool
    service: Record | None  # the properties of the running one
    last_record_usec: int | None = None
    history: bool = False  # the service could be asked for its records
    logins: tuple[Logins, ...] = ()
    now_usec: int = 0

    @property
    def version(self) -> tuple[int, int]:
        return version_of(self.release)

    @property
    def leaks(self) -> bool | None:
        """Whether page cache keeps removed memory cgroups alive here; None where it cannot be told."""
        if self.hierarchy is None:
            return False
        if self.features is None or self.features.reparents_lru is None:
            return None if self.version >= (7, 0) else True
        return not self.features.reparents_lru


def read(
    roots: Roots,
    *,
    service: Record | None = None,
    last_record_usec: int | None = None,
    history: bool = False,
    logins: tuple[Logins, ...] = (),
    now_usec: int = 0,
) -> Readings:
    """Reads files alone, and writes none; works without rights and without the service."""
    hierarchy = detect(roots.proc)
    return Readings(
        release=(read_text(roots.proc / "sys/kernel/osrelease") or "").strip(),
        hierarchy=hierarchy,
        features=_features(hierarchy, roots),
        command_line=tuple((read_text(roots.proc / "cmdline") or "").split()),
        dying=_dying(hierarchy, roots),
        sessions_have_memcgs=_sessions_have_memcgs(hierarchy),
        pressure=some_percent("memory", roots.proc) is not None,
        in_container=(roots.run / "systemd/container").exists(),
        pam={name: lines for name in STACKS if (lines := pam_session(roots, name)) is not None},
        pam_profile=(roots.usr / "share/pam-configs/logindguard").exists(),
        cron=_cron(roots),
        lingering=_names(roots.var / "lib/systemd/linger"),
        kill_user_processes=is_true(setting(roots, "logind.conf", "KillUserProcesses"), False),
        polkit=(roots.usr / "share/dbus-1/system-services/org.freedesktop.PolicyKit1.service").exists(),
        journal_storage=(setting(roots, "journald.conf", "Storage") or "auto").lower(),
        journal_on_disk=(roots.var / "log/journal").is_dir(),
        installed=(roots.usr / "libexec/logindguardd").exists(),
        service=service,
        last_record_usec=last_record_usec,
        history=history,
        logins=logins,
        now_usec=now_usec,
    )


def _features(hierarchy: Hierarchy | None, roots: Roots) -> Features | None:
    try:
        return None if hierarchy is None else look(hierarchy, proc=roots.proc, sys=roots.sys)
    except (KernelError, OSError):
        return None


def _dying(hierarchy: Hierarchy | None, roots: Roots) -> int | None:
    if hierarchy is None:
        return None
    try:
        return ObserveBackend(hierarchy, "", proc=roots.proc).total_dying()
    except (KernelError, OSError, ValueError):
        return None


def _sessions_have_memcgs(hierarchy: Hierarchy | None) -> bool | None:
    """Whether cgroups below user.slice are memory cgroups; None before anybody has logged in."""
    if hierarchy is None:
        return None
    slice_ = hierarchy.mount / "user.slice"
    if hierarchy.version == 1:
        return True if slice_.is_dir() else None
    controllers = read_text(slice_ / "cgroup.subtree_control")
    # systemd takes the controller away with the last child: what was there says nothing then.
    if controllers is None or not any(entry.is_dir() for entry in slice_.iterdir()):
        return None
    return "memory" in controllers.split()


def _cron(roots: Roots) -> frozenset[str]:
    places = {
        "cron": roots.usr / "sbin/cron",
        "cronie": roots.usr / "sbin/crond",
        "systemd-cron": roots.usr / "lib/systemd/system-generators/systemd-crontab-generator",
    }
    return frozenset(name for name, path in places.items() if path.exists())


def _names(directory: Path) -> tuple[str, ...]:
    try:
        return tuple(sorted(entry.name for entry in directory.iterdir()))
    except OSError:
        return ()
