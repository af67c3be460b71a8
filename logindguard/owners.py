"""Who a teardown is booked to: names with few values, however many sessions a host sees."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from enum import StrEnum

from .model import Teardown
from .paths import in_container, uid_of_path


class By(StrEnum):
    """What teardowns are grouped by."""

    UNIT = "unit"
    USER = "user"
    TRIGGER = "trigger"
    SLICE = "slice"


Owner = Callable[[Teardown], str]
SYSTEM = "system"
"""Who owns what is no user's, where owners are users."""

# Names that are another one each time: what stands for them is the rest, as a glob.
_COUNTED = re.compile(
    r"(session-|user@|user-runtime-dir@|user-|run-|docker-|libpod-|cri-containerd-|crio-).+(\.[a-z]+)"
)
_INSTANCE = re.compile(r"([^@]+@).+(\.[a-z]+)")
_OWN_MANAGER = re.compile(r"/user@[0-9]+\.service/")
_SESSIONS = {
    "sshd": "ssh login",
    "su": "su",
    "su-l": "su",
    "runuser": "su",
    "runuser-l": "su",
    "sudo": "sudo",
    "sudo-i": "sudo",
    "cron": "cron job",
    "crond": "cron job",
    "atd": "at job",
    "login": "console login",
}


def unit_glob(unit: str) -> str:
    """ "session-67.scope" as "session-*.scope"; units with a name of their own as they are."""
    match = _COUNTED.fullmatch(unit) or _INSTANCE.fullmatch(unit)
    return f"{match[1]}*{match[2]}" if match else unit


def user_of(teardown: Teardown) -> str:
    """The uid as text, SYSTEM, or "" where neither logind nor the path tells."""
    return _user_or_system(teardown.path) if teardown.uid is None else str(teardown.uid)


def _user_or_system(path: str) -> str:
    uid = uid_of_path(path)
    if uid is not None:
        return str(uid)
    return "" if path == "/" or f"{path}/".startswith("/user.slice/") else SYSTEM


def slice_of(path: str) -> str:
    """The innermost slice that a cgroup is in: "/user.slice/user-1000.slice"; "/" outside all."""
    parts = path.strip("/").split("/")
    while parts and not parts[-1].endswith(".slice"):
        parts.pop()
    return "/" + "/".join(parts)


def trigger_of(teardown: Teardown, timers: Collection[str] = ()) -> str:
    """What made the unit: "ssh login", "cron job", "timer"; `timers` are units that a timer starts."""
    unit = teardown.unit
    if teardown.service is not None:
        return _SESSIONS.get(teardown.service, "other login")
    if unit.startswith("session-"):
        return "login"
    if unit.startswith("cron-"):
        return "cron job"
    if unit.startswith(("user@", "user-runtime-dir@", "user-")):
        return "user manager"
    if _OWN_MANAGER.search(teardown.path):
        return "user service"
    if in_container(teardown.path):
        return "container"
    if unit in timers or unit_glob(unit) in timers:
        return "timer"
    return "transient unit" if unit.startswith("run-") else "service"


def owner_by(by: By, timers: Collection[str] = ()) -> Owner:
    """The owner of a teardown; "" where nothing tells."""
    match by:
        case By.UNIT:
            return lambda teardown: unit_glob(teardown.unit)
        case By.USER:
            return user_of
        case By.TRIGGER:
            return lambda teardown: trigger_of(teardown, timers)
        case By.SLICE:
            return lambda teardown: slice_of(teardown.parent)


def stranger_by(by: By) -> Callable[[str], str]:
    """The owner of what hangs dying at a path and was no teardown that is known; "" where nothing tells."""
    match by:
        case By.USER:
            return _user_or_system
        case By.SLICE:
            return slice_of
        case _:
            return lambda path: ""
