"""What one check says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    OK = "ok"
    NOTE = "note"  # worth knowing; nothing has to be done
    WARN = "warn"  # the guard does less than it could, or the host leaks more than it has to
    FAIL = "fail"  # this host leaks and nothing covers it


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`finding` and `why` are sentences; `command` is what an administrator may type or write."""

    check: str
    state: State
    finding: str
    why: str
    command: str = ""


def verdict(leaks: bool | None, covered: bool, findings: Sequence[Finding]) -> str:
    """The answer in one sentence. `leaks` is None where that cannot be told."""
    failed = any(finding.state is State.FAIL for finding in findings)
    match leaks, covered and not failed:
        case False, _:
            return "This host does not leak memory cgroups for long: its kernel heals itself."
        case True, True:
            return "This host leaks memory cgroups, and logindguard covers it."
        case True, False:
            return "This host leaks memory cgroups, and nothing covers it."
        case _, True:
            return "Whether this host leaks memory cgroups cannot be told; logindguard covers it."
        case _:
            return "Whether this host leaks memory cgroups cannot be told, and nothing covers it."
