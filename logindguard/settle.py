"""Gathers teardowns of one parent for a moment, so that a burst of logouts costs one reclaim."""

from __future__ import annotations

from dataclasses import dataclass, field

from .config import TeardownSettings
from .model import Teardown


@dataclass(slots=True)
class _Group:
    first_usec: int
    last_usec: int
    teardowns: list[Teardown] = field(default_factory=list)

    def due_usec(self, settings: TeardownSettings) -> int:
        return min(self.last_usec + settings.settle_usec, self.first_usec + settings.settle_max_usec)


class Settler:
    """Pure: time is an argument. Teardowns of one parent path settle together."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, teardown: Teardown, now_usec: int) -> None:
        group = self._groups.setdefault(teardown.parent, _Group(now_usec, now_usec))
        group.teardowns.append(teardown)
        group.last_usec = now_usec
        self._count += 1

    def next_usec(self, settings: TeardownSettings) -> int | None:
        return min((group.due_usec(settings) for group in self._groups.values()), default=None)

    def due(self, settings: TeardownSettings, now_usec: int) -> list[tuple[str, tuple[Teardown, ...]]]:
        """Take out the settled groups: parent path and what was torn down there."""
        ready = [path for path, group in self._groups.items() if group.due_usec(settings) <= now_usec]
        groups = [(path, tuple(self._groups.pop(path).teardowns)) for path in ready]
        self._count -= sum(len(teardowns) for _, teardowns in groups)
        return groups
