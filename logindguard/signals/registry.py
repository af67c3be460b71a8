"""What is known of the covered cgroups, and one teardown for each of them.

Pure bookkeeping: no I/O, time is an argument. The sources disagree on order,
repeat themselves and reuse names (a dead session's scope is announced and
removed up to three more times, session ids come back, SessionRemoved may never
come), so everything is keyed on the cgroup's inode: a cgroup is reported ended
when its inode leaves the registry, which happens once.
"""

from __future__ import annotations

import logging
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..model import Phase, Source, Teardown
from ..paths import uid_of_path

log = logging.getLogger(__name__)

DESCRIPTION_AGE_USEC = 30_000_000  # logind announces a session a few ms before its scope is there

_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,255}")  # VALID_CHARS of systemd, src/basic/unit-name.c
_SESSION_SCOPE = re.compile(r"session-(.+)\.scope")


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What logind says of a session."""

    session_id: str | None = None
    uid: int | None = None
    service: str | None = None


@dataclass(slots=True)
class _Live:
    unit: str
    inode: int
    uid: int | None
    description: Description | None = None
    ending: bool = False  # a stop job is at work, and that was told


class Registry:
    """Live covered cgroups by path; calls `on_teardown` as they end.

    `covers` says by unit name whether a cgroup matters here. All memory is
    bounded: names below user@.service are chosen by users.
    """

    def __init__(
        self,
        covers: Callable[[str], bool],
        on_teardown: Callable[[Teardown], None],
        *,
        max_live: int = 100_000,
        max_dead: int = 4_096,
        max_descriptions: int = 4_096,
    ) -> None:
        self.covers = covers
        self._on_teardown = on_teardown
        self._max_live = max_live
        self._max_dead = max_dead
        self._max_descriptions = max_descriptions
        self._live: dict[str, _Live] = {}
        self._below: Counter[str] = Counter()  # live cgroups strictly below a path
        self._paths: dict[str, list[str]] = {}  # of the system manager's units only
        self._dead: OrderedDict[int, None] = OrderedDict()  # inodes told as ended, oldest first
        self._descriptions: OrderedDict[str, tuple[int, Description]] = OrderedDict()
        self._full_told = False

    def __len__(self) -> int:
        return len(self._live)

    def entries(self) -> list[tuple[str, int]]:
        """Path and inode of every live cgroup."""
        return [(path, live.inode) for path, live in self._live.items()]

    def inode(self, path: str) -> int | None:
        """The inode of the live cgroup at `path`."""
        live = self._live.get(path)
        return live.inode if live else None

    def live(self, unit: str) -> list[tuple[str, int]]:
        """Path and inode of the live cgroups of one of the system manager's units."""
        return [(path, self._live[path].inode) for path in self._paths.get(unit, ())]

    def awaits_ending(self, unit: str) -> bool:
        """Whether `ending(unit)` would tell something new."""
        return any(not self._live[path].ending for path in self._paths.get(unit, ()))

    def appeared(self, path: str, inode: int, now_usec: int) -> None:
        """A cgroup is there. Another one known at its path has ended unheard of."""
        known = self._live.get(path)
        if (known is not None and known.inode == inode) or inode in self._dead:
            return
        if known is not None:
            self.ended(path, Source.CGROUP_WATCH, now_usec)
        unit = self._covered_unit(path)
        if unit is None or not self._has_room(path):
            return
        live = _Live(unit=unit, inode=inode, uid=uid_of_path(path))
        self._live[path] = live
        self._below.update(_ancestors(path))
        if not is_delegated(path):
            self._paths.setdefault(unit, []).append(path)
            heard_usec, description = self._descriptions.pop(unit, (0, None))
            if description and now_usec - heard_usec <= DESCRIPTION_AGE_USEC:
                live.description = _fitting(description, live)

    def described(
        self,
        *,
        unit: str,
        now_usec: int,
        session_id: str | None = None,
        uid: int | None = None,
        service: str | None = None,
    ) -> None:
        """What logind says of the session of `unit`, before or after its cgroup appeared."""
        if not self.covers(unit):
            return
        description = Description(session_id=session_id, uid=uid, service=service)
        for path in self._paths.get(unit, ()):
            live = self._live[path]
            if live.description is None:
                live.description = _fitting(description, live)
            if live.description == description:
                return
        # It speaks of a cgroup that is still to come; a reused session id makes both happen.
        self._descriptions[unit] = (now_usec, description)
        self._descriptions.move_to_end(unit)
        while len(self._descriptions) > self._max_descriptions:
            self._descriptions.popitem(last=False)

    def ending(self, unit: str, source: Source, now_usec: int) -> None:
        """A stop job was queued for one of the system manager's units."""
        for path in list(self._paths.get(unit, ())):
            live = self._live[path]
            if not live.ending:
                live.ending = True
                self._tell(path, live, Phase.ENDING, source, now_usec)

    def ending_over(self, unit: str) -> None:
        """The stop job has ended, or nothing is heard of it any more: what is still there may live on."""
        for path in self._paths.get(unit, ()):
            self._live[path].ending = False

    def lives_on(self, teardown: Teardown) -> bool:
        """Whether the cgroup, which was told to be ending, is there and no longer so. Any thread may ask."""
        live = self._live.get(teardown.path)
        return live is not None and live.inode == teardown.inode and not live.ending

    def ending_at(self, path: str, inode: int, source: Source, now_usec: int) -> Teardown | None:
        """The teardown of the cgroup at `path`, which somebody in it announces; None: not covered."""
        live = self._live.get(path)
        if live is None or live.inode != inode:  # not heard of yet
            unit = self._covered_unit(path)
            if unit is None or is_delegated(path):
                return None
            live = _Live(unit=unit, inode=inode, uid=uid_of_path(path))
        return _teardown(path, live, Phase.ENDING, source, now_usec)

    def ended(self, unit_or_path: str, source: Source, now_usec: int) -> None:
        """The cgroup is gone, and with it whatever was known below it; deepest first."""
        is_path = unit_or_path.startswith("/")
        paths = [unit_or_path] if is_path else list(self._paths.get(unit_or_path, ()))
        for path in paths:
            if self._below[path]:
                inside = [other for other in self._live if other.startswith(path + "/")]
                for other in sorted(inside, key=lambda other: -other.count("/")):
                    self._end(other, source, now_usec)
            self._end(path, source, now_usec)

    def missed(self, path: str, source: Source, now_usec: int) -> None:
        """A cgroup came and went before its inode could be read: told with inode 0."""
        if path in self._live:
            self.ended(path, source, now_usec)
        elif unit := self._covered_unit(path):
            live = _Live(unit=unit, inode=0, uid=uid_of_path(path))
            if not is_delegated(path) and unit in self._descriptions:
                live.description = _fitting(self._descriptions.pop(unit)[1], live)
            self._tell(path, live, Phase.ENDED, source, now_usec)

    def _end(self, path: str, source: Source, now_usec: int) -> None:
        live = self._live.pop(path, None)
        if live is None:
            return
        for ancestor in _ancestors(path):
            self._below[ancestor] -= 1
            if not self._below[ancestor]:
                del self._below[ancestor]
        paths = self._paths.get(live.unit, [])
        if path in paths:
            paths.remove(path)
            if not paths:
                del self._paths[live.unit]
        self._dead[live.inode] = None
        while len(self._dead) > self._max_dead:
            self._dead.popitem(last=False)
        self._tell(path, live, Phase.ENDED, source, now_usec)

    def _tell(self, path: str, live: _Live, phase: Phase, source: Source, now_usec: int) -> None:
        self._on_teardown(_teardown(path, live, phase, source, now_usec))

    def _covered_unit(self, path: str) -> str | None:
        unit = path.rpartition("/")[2].removeprefix("_")  # cg_escape() of systemd
        # Whatever else a delegated subtree holds must not reach a journal line or a glob.
        if not _UNIT.fullmatch(unit) or not path.isprintable() or not self.covers(unit):
            return None
        return unit

    def _has_room(self, path: str) -> bool:
        # Users make cgroups below user@.service at will: half of the room is not theirs.
        limit = self._max_live // 2 if is_delegated(path) else self._max_live
        if len(self._live) < limit:
            return True
        if not self._full_told:
            self._full_told = True
            log.warning("More than %d covered cgroups are alive; further ones are left to the sweep.", limit)
        return False


def _teardown(path: str, live: _Live, phase: Phase, source: Source, now_usec: int) -> Teardown:
    description = live.description or Description()
    session = _SESSION_SCOPE.fullmatch(live.unit)
    return Teardown(
        unit=live.unit,
        path=path,
        inode=live.inode,
        phase=phase,
        source=source,
        heard_usec=now_usec,
        session_id=description.session_id or (session[1] if session else None),
        uid=description.uid if live.uid is None else live.uid,
        service=description.service,
    )


def _ancestors(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def is_delegated(path: str) -> bool:
    """Below user@UID.service a user's own manager names the units; the system bus does not mean those."""
    return "/user@" in path.rpartition("/")[0]


def _fitting(description: Description, live: _Live) -> Description | None:
    """Nothing when it is a leftover of another user's session with the same id."""
    if None not in (description.uid, live.uid) and description.uid != live.uid:
        return None
    return description
