"""Exit statuses, one table: the man page and `--help` of scripts are held to it."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """sysexits(3) above 2; MEANING says when each one comes."""

    OK = 0
    NEGATIVE = 1
    USAGE = 2
    NOT_FOUND = 66
    UNAVAILABLE = 69
    INTERNAL = 70
    KERNEL = 71
    OUTPUT = 74
    TEMPORARY = 75
    PROTOCOL = 76
    DENIED = 77
    SETTINGS = 78
    INTERRUPTED = 130


MEANING: dict[Exit, str] = {
    Exit.OK: "done",
    Exit.NEGATIVE: "the answer is no: check is above its threshold, doctor found a failure, a job failed",
    Exit.USAGE: "wrong arguments",
    Exit.NOT_FOUND: "no such unit, session, record or job",
    Exit.UNAVAILABLE: "the service does not run, or cannot do this on this host",
    Exit.INTERNAL: "an internal error",
    Exit.KERNEL: "the kernel refused, or memory.min could not be put back",
    Exit.OUTPUT: "the output cannot be written",
    Exit.TEMPORARY: "not now: busy, paused, or no answer in time",
    Exit.PROTOCOL: "the service is of another version and has no such call",
    Exit.DENIED: "not permitted",
    Exit.SETTINGS: "wrong settings",
    Exit.INTERRUPTED: "interrupted from the keyboard",
}


class Failure(Exception):
    """Ends the command with one sentence and an exit status."""

    def __init__(self, sentence: str, status: Exit) -> None:
        super().__init__(sentence)
        self.status = status
