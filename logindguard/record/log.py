"""The ways out for a line: journald for a service, stderr for a person, JSON for a program.

Nothing that a user named may forge a line or a field. On stderr a line end would begin another
line, and `<0>` there another priority, so control characters are written as escapes; the
journal's own protocol is binary and takes any value as it is.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from ..text import printable
from .repeats import OncePerHour

IDENTIFIER = "logindguard"
JOURNAL_SOCKET = Path("/run/systemd/journal/socket")

Field = tuple[str, str | int]


def to_journal(fields: Iterable[Field]) -> bool:
    """Send one entry, names as they are given, which may repeat. False when journald does not take it."""
    if not JOURNAL_SOCKET.exists():
        return False
    try:
        from systemd import journal  # optional, and large
    except ImportError:
        return False
    entry = [("SYSLOG_IDENTIFIER", IDENTIFIER), *fields]
    try:
        journal.sendv(*(f"{name}={value}".encode("utf-8", "surrogateescape") for name, value in entry))
    except (OSError, UnicodeError):  # journald is gone or full, or a value is no text at all
        return False
    return True


def to_stderr(priority: int, message: str) -> None:
    """One line, for a service manager with the prefix of sd-daemon(3). Nobody to read it is no error."""
    prefix = f"<{priority}>" if managed() else ""
    try:
        sys.stderr.write(f"{prefix}{printable(message)}\n")
        sys.stderr.flush()
    except (OSError, ValueError):  # closed, or a pipe without a reader
        return


def to_json(fields: Iterable[Field], stream: TextIO) -> None:
    """One line, in the form of `journalctl -o json`: all values are text, a repeated field is a list."""
    entry: dict[str, list[str]] = {}
    for name, value in fields:
        entry.setdefault(name, []).append(str(value))
    line = {name: values if len(values) > 1 else values[0] for name, values in entry.items()}
    try:
        stream.write(json.dumps(line) + "\n")
        stream.flush()
    except (OSError, ValueError):  # as above
        return


def managed() -> bool:
    """Whether a service manager reads stderr: systemd tells its own process so, and hands on a stream.

    systemd.exec(5). What a shell inherited from a service that it runs in says nothing of this process.
    """
    pid = os.environ.get("SYSTEMD_EXEC_PID")
    return pid == str(os.getpid()) or _stderr_is_journal()


def setup_logging(level: str = "info") -> None:
    """Send the program's own log lines where stderr leads: the journal, a service manager, a person.

    `level` is a log_level of the settings. May be called again.
    """
    handler: logging.Handler
    if _stderr_is_journal() and JOURNAL_SOCKET.exists():
        handler = _JournalHandler()
    else:
        handler = logging.StreamHandler()
    handler.setFormatter(_Formatter(prefixed=managed()))
    handler.addFilter(OncePerHour())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _stderr_is_journal() -> bool:
    """systemd.exec(5): JOURNAL_STREAM is device and inode of the stream, to tell it from a redirection."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _priority(level: int) -> int:
    """syslog(3) priority of a logging level."""
    for lowest, priority in (
        (logging.CRITICAL, 2),
        (logging.ERROR, 3),
        (logging.WARNING, 4),
        (logging.INFO, 6),
    ):
        if level >= lowest:
            return priority
    return 7


class _Formatter(logging.Formatter):
    """The message on one line; a traceback below it line by line, each with the prefix."""

    def __init__(self, *, prefixed: bool) -> None:
        super().__init__()
        self._prefixed = prefixed

    def format(self, record: logging.LogRecord) -> str:
        lines = [record.getMessage()]
        if record.exc_info:
            lines += self.formatException(record.exc_info).splitlines()
        prefix = f"<{_priority(record.levelno)}>" if self._prefixed else ""
        return "\n".join(prefix + printable(line) for line in lines)


class _JournalHandler(logging.Handler):
    """python3-systemd's own handler would send the whole LogRecord, unencodable names included."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            lines = [printable(record.getMessage())]
            if record.exc_info:
                lines += logging.Formatter().formatException(record.exc_info).splitlines()
            fields: list[Field] = [
                ("MESSAGE", "\n".join(lines)),
                ("PRIORITY", _priority(record.levelno)),
                ("LOGGER", record.name),
                ("THREAD_NAME", record.threadName or ""),
                ("CODE_FILE", record.pathname),
                ("CODE_LINE", record.lineno),
                ("CODE_FUNC", record.funcName),
            ]
            if not to_journal(fields):
                for line in lines:
                    to_stderr(_priority(record.levelno), line)
        except Exception:  # noqa: BLE001  # logging's contract: a bad log call is reported, not raised
            self.handleError(record)
