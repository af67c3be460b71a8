"""Where dying memcgs come from: logins, cron jobs, and how often."""

from __future__ import annotations

from ...text import counted, listed
from .finding import Finding, State
from .logins import DAYS, OFTEN
from .readings import Readings

_SYSTEMD = "pam_systemd.so"
_HOOK = "session optional pam_exec.so type=close_session quiet /usr/libexec/logindguard-hook"


def _has(readings: Readings, stack: str, words: str) -> bool:
    return any(words in line for line in readings.pam.get(stack, ()))


def pam_stacks(readings: Readings) -> Finding:
    ways = [name for name in ("sshd", "login") if _has(readings, name, _SYSTEMD)]
    if not ways and not _has(readings, "common-session", _SYSTEMD):
        return Finding(
            check="pam-systemd",
            state=State.OK,
            finding="No login goes through pam_systemd.so.",
            why="Logins get no cgroup of their own then, and leave none behind.",
        )
    through = f"/etc/pam.d/{' and '.join(ways)}" if ways else "/etc/pam.d/common-session"
    return Finding(
        check="pam-systemd",
        state=State.OK,
        finding=f"Logins get a cgroup each, by pam_systemd.so in {through}.",
        why="That is where sessions' memory cgroups come from, and the guard hears of their end.",
    )


def pam_profile(readings: Readings) -> Finding:
    why = (
        "It reclaims while a session ends, before its cgroup is removed: then nothing is left behind at all."
    )
    if _has(readings, "common-session", "logindguard"):
        return Finding(
            check="pam-hook", state=State.OK, finding="The PAM hook is part of common-session.", why=why
        )
    if readings.pam_profile:
        return Finding(
            check="pam-hook",
            state=State.WARN,
            finding="The PAM hook is installed but not part of common-session.",
            why=why,
            command="pam-auth-update --enable logindguard",
        )
    return Finding(
        check="pam-hook",
        state=State.NOTE,
        finding="The PAM hook is not installed.",
        why=f"{why} Without it the guard works after the removal.",
        command="" if readings.installed else "apt install ./logindguard_*_all.deb",
    )


def cron(readings: Readings) -> Finding:
    if "systemd-cron" in readings.cron:
        return Finding(
            check="cron",
            state=State.OK,
            finding="Cron jobs are services of systemd-cron (cron-*.service).",
            why="Each run leaves a memory cgroup behind; the guard covers these units.",
        )
    stack = "cron" if "cron" in readings.cron else "crond"
    if not readings.cron:
        return Finding(
            check="cron",
            state=State.OK,
            finding="No cron is installed.",
            why="Timers of systemd start services, which the guard covers where 'units' names them.",
        )
    if _has(readings, stack, _SYSTEMD):
        hooked = _has(readings, stack, "logindguard")
        return Finding(
            check="cron",
            state=State.OK if hooked else State.NOTE,
            finding=f"Each cron job gets a session of its own (pam_systemd.so in /etc/pam.d/{stack}).",
            why="Each run leaves a memory cgroup behind; with the hook in front of it, none.",
            command="" if hooked else f"put '{_HOOK}' before pam_systemd.so in /etc/pam.d/{stack}",
        )
    return Finding(
        check="cron",
        state=State.OK,
        finding="Cron jobs run in cron.service itself, without a session.",
        why="They leave no memory cgroup behind.",
    )


def lingering(readings: Readings) -> Finding:
    who = readings.lingering
    return Finding(
        check="linger",
        state=State.OK,
        finding=f"{counted(len(who), 'user')} linger: {listed(who)}." if who else "No user lingers.",
        why="The manager and slice of a lingering user stay between logins; only the session's scope goes.",
    )


def frequent_logins(readings: Readings) -> Finding | None:
    """The trigger itself taken away for those who come and go most: users' managers that stay."""
    if not readings.logins:
        return None
    often = [
        found for found in readings.logins if found.sessions >= OFTEN and found.user not in readings.lingering
    ]
    if not often:
        return Finding(
            check="logins",
            state=State.OK,
            finding=f"No user who does not linger logged in {OFTEN} times in {DAYS} days.",
            why="For those who do, lingering would save most of what their logouts leave behind.",
        )
    names = [found.user for found in often]
    sessions = sum(found.sessions for found in often)
    avoidable = sum(found.avoidable for found in often)
    saved = (
        f"{avoidable} of {avoidable + sessions} memory cgroups"
        if avoidable
        else f"up to {3 * sessions} of {4 * sessions} memory cgroups"
    )
    return Finding(
        check="logins",
        state=State.NOTE,
        finding=f"{counted(sessions, 'login')} of {listed(names)} in {DAYS} days.",
        why=(
            f"Lingering would have saved the removal of {saved}, by estimate: the user's manager, its "
            "runtime directory and slice stay between logins. They also stay when the user is gone."
        ),
        command=f"loginctl enable-linger {' '.join(names)}",
    )


def kill_user_processes(readings: Readings) -> Finding:
    if readings.kill_user_processes:
        return Finding(
            check="kill-user",
            state=State.OK,
            finding="KillUserProcesses=yes: a session's cgroup goes with its logout.",
            why="What is left can be released at once.",
        )
    return Finding(
        check="kill-user",
        state=State.OK,
        finding="KillUserProcesses=no: a session's cgroup stays while any of its processes does.",
        why="Such a cgroup lives and is not counted as dying; the guard hears of it when it goes.",
    )
