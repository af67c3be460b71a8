"""Whether the guard runs, what it may do, and whether it is heard."""

from __future__ import annotations

from ..times import ago
from .finding import Finding, State
from .logins import DAYS
from .readings import Readings


def service(readings: Readings) -> Finding:
    why = "It releases what ended sessions leave behind; nothing else on this host does."
    if readings.service is not None:
        version = readings.service.get("version", "")
        return Finding(check="service", state=State.OK, finding=f"logindguard {version} runs.", why=why)
    if readings.in_container:
        return Finding(
            check="service",
            state=State.NOTE,
            finding="This is a container: the guard does not run here.",
            why="A container shares its host's kernel: the guard of the host sees its cgroups too.",
        )
    harmless = readings.leaks is False
    command = "systemctl enable --now logindguard"
    return Finding(
        check="service",
        state=State.NOTE if harmless else State.FAIL,
        finding=f"logindguard is {'not running' if readings.installed else 'not installed'}.",
        why=why,
        command=command if readings.installed else "apt install ./logindguard_*_all.deb",
    )


def mode(readings: Readings) -> Finding | None:
    found = readings.service
    if found is None:
        return None
    name, reason = found.get("mode", ""), found.get("mode_reason", "")
    text = f"Mode {name}: {reason}."
    match name:
        case "precise":
            why = "What dying memcgs hold is reclaimed, and live cgroups are shielded."
            return Finding(check="mode", state=State.OK, finding=text, why=why)
        case "shared":
            why = "Live cgroups beside dying ones may lose page cache where reclaim.shared is on."
            return Finding(check="mode", state=State.NOTE, finding=text, why=why)
    return Finding(
        check="mode",
        state=State.OK if readings.leaks is False else State.WARN,
        finding=text,
        why="Dying memcgs are counted, and nothing is reclaimed.",
    )


def paused(readings: Readings) -> Finding | None:
    found = readings.service
    if found is None or not found.get("paused"):
        return None
    return Finding(
        check="paused",
        state=State.WARN,
        finding=f"The guard is {found.get('pause_reason') or 'paused'}.",
        why="What ended sessions leave behind stays for as long as that.",
        command="logindguardctl resume",
    )


def last_record(readings: Readings) -> Finding | None:
    if readings.service is None:
        return None
    why = "Each group of teardowns makes one record; on a host where users come and go there are many."
    if not readings.history:
        return Finding(
            check="last-record",
            state=State.NOTE,
            finding="The records cannot be read as this user.",
            why=why,
            command="sudo logindguardctl doctor",
        )
    if readings.last_record_usec is None:
        return Finding(
            check="last-record",
            state=State.NOTE,
            finding=f"There is no record of the last {DAYS} days.",
            why=why,
            command="logindguardctl monitor",
        )
    when = ago(readings.last_record_usec, readings.now_usec)
    return Finding(check="last-record", state=State.OK, finding=f"The last record was made {when}.", why=why)


def journal(readings: Readings) -> Finding:
    why = "History is read back from the journal: it reaches back as far as the journal does."
    persistent = "Storage=persistent in /etc/systemd/journald.conf; systemctl restart systemd-journald"
    match readings.journal_storage:
        case "none":
            return Finding(
                check="journal",
                state=State.WARN,
                finding="The journal keeps nothing (Storage=none).",
                why=why,
                command=persistent,
            )
        case "persistent":
            kept = True
        case "volatile":
            kept = False
        case _:
            kept = readings.journal_on_disk
    if kept:
        return Finding(check="journal", state=State.OK, finding="The journal is kept on disk.", why=why)
    return Finding(
        check="journal",
        state=State.NOTE,
        finding="The journal is lost with each reboot.",
        why=why,
        command="mkdir -p /var/log/journal; systemctl restart systemd-journald"
        if readings.journal_storage != "volatile"
        else persistent,
    )


def polkit(readings: Readings) -> Finding:
    if readings.polkit:
        return Finding(
            check="polkit",
            state=State.OK,
            finding="polkit is installed.",
            why="It decides who besides root may start reclaims and read what names other users.",
        )
    return Finding(
        check="polkit",
        state=State.NOTE,
        finding="polkit is not installed.",
        why="Only root may start reclaims then, and read what names other users.",
        command="apt install polkitd",
    )
