"""Points in time: as journalctl takes them, and as systemd's tools show them.

Accepted (a subset of systemd.time(7)): "2026-01-01 10:00:30", without seconds, without time or
without date; "today", "yesterday", "tomorrow", "now"; "-2h", "+5min", "2h ago"; "@1767261600".
A trailing " UTC" is understood; all else is local time.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

from ..config_values import parse_span
from ..text import span

SEC = 1_000_000
_TOO_LONG_USEC = 1 << 63  # 290,000 years, and what a D-Bus integer holds twice
_DAYS = {"yesterday": -1, "today": 0, "tomorrow": 1}
_FORMATS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d")
_CLOCKS = ("%H:%M:%S", "%H:%M")


def parse_time(written: str, now_usec: int) -> int:
    """Realtime microseconds. ValueError for what is no time, or one before 1970."""
    usec = _parse_time(written.strip(), now_usec)
    if not 0 <= usec < _TOO_LONG_USEC:
        raise ValueError(written)
    return usec


def _parse_time(text: str, now_usec: int) -> int:
    if text == "now":
        return now_usec
    if match := re.fullmatch(r"@([0-9]{1,12})(?:\.([0-9]{1,6}))?", text):
        return int(match[1]) * SEC + int((match[2] or "").ljust(6, "0"))
    if text.endswith(" ago"):
        return now_usec - parse_duration(text.removesuffix(" ago"))
    if text[:1] in ("-", "+"):
        sign = -1 if text[0] == "-" else 1
        return now_usec + sign * parse_duration(text[1:].strip())
    zone = UTC if text.endswith(" UTC") else None
    return _calendar(text.removesuffix(" UTC"), datetime.fromtimestamp(now_usec / SEC, UTC).astimezone(zone))


def parse_duration(written: str) -> int:
    """Microseconds of "90s" or "1h 30min"; a number alone is seconds. ValueError otherwise."""
    text = written.strip()
    usec = parse_span(f"{text}s" if re.fullmatch(r"[0-9.]+", text) else text)
    if usec >= _TOO_LONG_USEC:
        raise ValueError(written)
    return usec


def _calendar(text: str, now: datetime) -> int:
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    if text in _DAYS:
        return _usec(midnight + timedelta(days=_DAYS[text]), now)
    for pattern in (*_FORMATS, *_CLOCKS):
        try:
            found = datetime.strptime(text, pattern)  # noqa: DTZ007  # local time is meant
        except ValueError:
            continue
        if pattern in _CLOCKS:
            found = midnight.replace(hour=found.hour, minute=found.minute, second=found.second)
        return _usec(found, now)
    raise ValueError(text)


def _usec(naive: datetime, now: datetime) -> int:
    # Without a zone of its own the offset is that of the day meant, not of today: summer time.
    aware = naive.replace(tzinfo=UTC) if now.tzinfo is UTC else naive.astimezone()
    return round(aware.timestamp()) * SEC


def stamp(realtime_usec: int) -> str:
    """ "Thu 2026-01-01 10:00:00 UTC", in local time."""
    return time.strftime("%a %Y-%m-%d %H:%M:%S %Z", time.localtime(realtime_usec / SEC))


def ago(realtime_usec: int, now_usec: int) -> str:
    """ "3min 2s ago", or "in 4s"."""
    passed_usec = now_usec - realtime_usec
    whole_usec = abs(passed_usec) // SEC * SEC  # nobody waits for tenths
    if whole_usec == 0:
        return "now"
    return f"{span(whole_usec)} ago" if passed_usec > 0 else f"in {span(whole_usec)}"


def short_time(realtime_usec: int, now_usec: int) -> str:
    """As journalctl's short form, with the year where it is not this one's last twelve months."""
    recent = abs(now_usec - realtime_usec) < 330 * 86_400 * SEC
    return time.strftime(
        "%b %d %H:%M:%S" if recent else "%Y-%m-%d %H:%M", time.localtime(realtime_usec / SEC)
    )
