"""All checks, in the order in which they are told."""

from __future__ import annotations

from collections.abc import Callable

from . import kernel_checks, service_checks, session_checks
from .finding import Finding
from .readings import Readings

Check = Callable[[Readings], Finding | None]

CHECKS: tuple[Check, ...] = (
    kernel_checks.self_healing,
    kernel_checks.dying,
    service_checks.service,
    service_checks.mode,
    service_checks.paused,
    service_checks.last_record,
    kernel_checks.cgroup_version,
    kernel_checks.mount_options,
    kernel_checks.kernel_age,
    kernel_checks.kernel_memory,
    kernel_checks.memory_accounting,
    kernel_checks.pressure,
    session_checks.pam_stacks,
    session_checks.pam_profile,
    session_checks.cron,
    session_checks.lingering,
    session_checks.frequent_logins,
    session_checks.kill_user_processes,
    service_checks.polkit,
    service_checks.journal,
)


def examine(readings: Readings) -> list[Finding]:
    """What does not apply to this host is left out."""
    return [finding for check in CHECKS if (finding := check(readings)) is not None]
