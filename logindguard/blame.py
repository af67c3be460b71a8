"""Who leaves dying memcgs behind, worked out from the records: how often, how it ended, what is left.

What hangs dying under one live parent cannot be told apart: the kernel has a count, no names. So

- teardowns of an owner are exact: each is told once;
- what a parent had dying before and after each reclaim is exact;
- which of the teardowns that were there went is not known, where some went and some stayed. All are
  taken to have gone in equal part then, and what is said of their owners is an estimate. Where all
  went, all stayed, or all were one owner's, it is exact.

What is counted and no teardown told of is a stranger's, so that the sum over all owners is what the
kernel counts. Users' managers have cgroups of their own below them: what comes with the end of one is
taken to be its own, an estimate too. What was there before the first record is nobody's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .model import Booking, Mode, Outcome, Phase, ReclaimRecord, Teardown, Way
from .owners import Owner

_MANAGER = "user@"
Booked = ReclaimRecord | Booking
UNTOLD = ""  # the owner of teardowns that a record counts and does not name
# Inodes begin anew with each boot; from a reclaim before the rmdir to the one after it is not longer.
_SAME_TEARDOWN_USEC = 600_000_000


@dataclass(slots=True)
class Account:
    """What one owner's teardowns came to; `exact` is False where parts of it are estimates."""

    teardowns: int = 0
    at_once: float = 0  # nothing was dying right after the removal
    reclaimed: float = 0  # by the reclaim that followed it
    later: float = 0  # by the sweep, or by the kernel itself
    dying: float = 0  # still; strangers too
    freed_bytes: float = 0
    exact: bool = True
    last_usec: int = 0  # realtime
    why: str = ""  # most of it stays


Parts = dict[str, float]
"""How many, by owner."""


@dataclass(slots=True)
class _Pool:
    """What hangs dying under one parent: known teardowns, and strangers."""

    parts: Parts = field(default_factory=lambda: defaultdict(float))
    strangers: Parts = field(default_factory=lambda: defaultdict(float))
    why: str = ""

    @property
    def total(self) -> float:
        return sum(self.parts.values()) + sum(self.strangers.values())

    def take(self, other: _Pool) -> None:
        for mine, its in ((self.parts, other.parts), (self.strangers, other.strangers)):
            for owner, count in its.items():
                mine[owner] += count
        self.why = other.why or self.why


@dataclass(frozen=True, slots=True)
class _Ending:
    """A teardown that was served before its removal, and not told of since."""

    owner: str
    realtime_usec: int
    released: bool
    parent: str
    why: str


class Blame:
    """Takes records one by one, oldest first, then `close`."""

    def __init__(self, owner: Owner, stranger: Callable[[str], str]) -> None:
        self.accounts: dict[str, Account] = defaultdict(Account)
        self.teardowns = 0
        self.first_usec = 0  # realtime of the first record; 0: there was none
        self._owner = owner
        self._stranger = stranger
        self._pools: dict[str, _Pool] = {}
        self._above: set[str] = set()  # parents of dying memcgs so far, and what is above those
        self._counted: set[str] = set()  # parents whose count is known since an earlier record
        self._endings: dict[int, _Ending] = {}

    def book(self, record: Booked) -> None:
        self.first_usec = self.first_usec or record.realtime_usec
        if record.way is Way.BEFORE:
            self._before(record)
        else:
            self._after(record)

    def close(self, dying: Mapping[str, int] | int | None, reasons: Mapping[str, str] | None = None) -> None:
        """What is dying now and why: by live parent, or of the whole hierarchy, as on cgroup v1.

        None where that is not known: what is left stays as the last records told it.
        """
        for ending in self._endings.values():
            self._end(ending)
        self._endings.clear()
        if isinstance(dying, int):
            whole = _Pool()
            for pool in self._pools.values():
                whole.take(pool)
            self._pools, dying = {"/": whole}, {"/": dying}
        if dying is not None:
            for path in {*self._pools, *dying}:
                pool = self._pool(path)
                self._strange(pool, dying.get(path, 0) - pool.total, path)
                self._thin(pool, {}, pool.total, dying.get(path, 0), at_once=False)
        for path, pool in sorted(self._pools.items(), key=lambda item: item[1].total):
            why = (reasons or {}).get(path) or pool.why
            for parts in (pool.parts, pool.strangers):
                for owner, count in parts.items():
                    account = self.accounts[owner]
                    account.dying += count
                    account.why = why or account.why

    def ranked(self) -> list[tuple[str, Account]]:
        """Who has most dying first, then who had most teardowns."""
        there = [(owner, each) for owner, each in self.accounts.items() if each.teardowns or each.dying]
        return sorted(there, key=lambda item: (-item[1].dying, -item[1].teardowns, item[0]))

    def _pool(self, path: str) -> _Pool:
        pool = self._pools.get(path)
        if pool is None:
            pool = self._pools[path] = _Pool()
            while path not in self._above:
                self._above.add(path)
                path = path.rpartition("/")[0] or "/"
        return pool

    def _before(self, record: Booked) -> None:
        for teardown in record.teardowns:
            owner = self._owner(teardown)
            if not self._is_open(teardown.inode, record.realtime_usec):
                self._count(owner, 1, record.realtime_usec)
            self._endings[teardown.inode] = _Ending(
                owner,
                record.realtime_usec,
                # Where dying memcgs are counted by parent, another record follows if any is left then.
                record.outcome is Outcome.RELEASED or record.mode is not Mode.SHARED,
                "/" if record.mode is Mode.SHARED else teardown.parent,
                record.reason,
            )
            self.accounts[owner].freed_bytes += record.freed_bytes / len(record.teardowns)

    def _is_open(self, inode: int, realtime_usec: int) -> bool:
        """Whether the teardown of that inode has been counted already."""
        ending = self._endings.pop(inode, None)
        if ending is None:
            return False
        if realtime_usec - ending.realtime_usec <= _SAME_TEARDOWN_USEC:
            return True
        self._end(ending)
        return False

    def _end(self, ending: _Ending) -> None:
        if ending.released:
            self.accounts[ending.owner].at_once += 1
        else:
            pool = self._pool(ending.parent)
            pool.parts[ending.owner] += 1
            pool.why = ending.why

    def _after(self, record: Booked) -> None:
        parent = "/" if record.mode is Mode.SHARED else record.target  # counted for the whole hierarchy
        new = self._new(record)
        self._move(record.teardowns, parent)
        pool = self._pool(parent)
        self._freed(record, new or pool.parts)
        if record.target_inode and record.outcome is not Outcome.GONE:  # else nothing was counted
            known = pool.total + sum(new.values())
            self._strange(pool, record.dying_before - known, parent, record.teardowns)
            self._thin(pool, new, known, record.dying_before, at_once=True)
            self._thin(pool, new, record.dying_before, record.dying_after, at_once=not record.writes)
        for owner, count in new.items():
            pool.parts[owner] += count
        pool.why = record.reason
        if not (pool.parts or pool.strangers):
            del self._pools[parent]

    def _new(self, record: Booked) -> Parts:
        """The teardowns of a record by owner, each counted once."""
        new: Parts = defaultdict(float)
        for teardown in record.teardowns:
            owner = self._owner(teardown)
            new[owner] += 1
            if not (self._endings and self._is_open(teardown.inode, record.realtime_usec)):
                self._count(owner, 1, record.realtime_usec)
        if unnamed := record.unnamed:
            new[UNTOLD] += unnamed
            self._count(UNTOLD, unnamed, record.realtime_usec)
        return new

    def _count(self, owner: str, count: int, realtime_usec: int) -> None:
        self.teardowns += count
        account = self.accounts[owner]
        account.teardowns += count
        account.last_usec = realtime_usec

    def _move(self, teardowns: tuple[Teardown, ...], parent: str) -> None:
        """What hung under a parent that was removed itself hangs higher up now."""
        for teardown in teardowns:
            if teardown.path in self._above and teardown.phase is Phase.ENDED:
                below = f"{teardown.path}/"
                for path in [path for path in self._pools if f"{path}/".startswith(below)]:
                    if path != parent:
                        self._pool(parent).take(self._pools.pop(path))

    def _strange(self, pool: _Pool, count: float, parent: str, teardowns: tuple[Teardown, ...] = ()) -> None:
        """Take in what is counted beyond what is known."""
        known = parent in self._counted
        self._counted.add(parent)
        if count <= 0:
            return
        managers = [each for each in teardowns if known and each.unit.startswith(_MANAGER)]
        for owner in map(self._owner, managers):
            pool.strangers[owner] += count / len(managers)
            self.accounts[owner].exact = False
        if not managers:
            pool.strangers[self._stranger(parent)] += count

    def _thin(self, pool: _Pool, new: Parts, count: float, dying: int, *, at_once: bool) -> None:
        """Make `pool` and `new`, which are `count`, no more than are dying; what went is its owners'."""
        if count <= dying:
            return
        all_parts = (pool.parts, pool.strangers, new)
        mixed = dying > 0 and len(set().union(*all_parts)) > 1
        for parts in all_parts:
            for owner, part in list(parts.items()):
                stays = part * dying / count
                if parts is not pool.strangers:
                    account = self.accounts[owner]
                    account.exact &= not mixed
                    if parts is pool.parts:
                        account.later += part - stays
                    elif at_once:
                        account.at_once += part - stays
                    else:
                        account.reclaimed += part - stays
                if dying:
                    parts[owner] = stays
                else:
                    del parts[owner]

    def _freed(self, record: Booked, parts: Parts) -> None:
        total = sum(parts.values())
        if not total or not record.freed_bytes:
            return
        for owner, count in parts.items():
            account = self.accounts[owner]
            account.freed_bytes += record.freed_bytes * count / total
