"""What happened lately and is not to be found elsewhere: where ended units hung, and the last records.

The tree forgets a unit with its cgroup, and the journal takes a moment to take a record in.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from sys import intern

from .model import Phase, ReclaimRecord, Teardown

MAX_UNITS = 1_024
MAX_RECORDS = 64


class Recent:
    def __init__(self) -> None:
        self._places: OrderedDict[str, str] = OrderedDict()  # where the last cgroup of a unit hung
        self.records: deque[ReclaimRecord] = deque(maxlen=MAX_RECORDS)  # oldest first

    def heard(self, teardown: Teardown) -> None:
        if teardown.phase is not Phase.ENDED or "/user@" in teardown.parent:
            return  # below user@.service any user can use any name
        self._places[teardown.unit] = intern(teardown.parent)  # thousands of sessions hang under few slices
        self._places.move_to_end(teardown.unit)
        while len(self._places) > MAX_UNITS:
            self._places.popitem(last=False)

    def place(self, unit: str) -> str | None:
        """The parent of the unit's last cgroup that ended."""
        return self._places.get(unit)
