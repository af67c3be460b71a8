"""How quantities and foreign names are put into words, the way systemd's own tools do."""

from __future__ import annotations

from collections.abc import Sequence

_SIZES = ((1 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K"))
_SPANS = (
    (86_400_000_000, "d"),
    (3_600_000_000, "h"),
    (60_000_000, "min"),
    (1_000_000, "s"),
    (1_000, "ms"),
    (1, "us"),
)


def size(count_bytes: int) -> str:
    """Bytes as "12.5M", base 1024, one decimal at most; exact below 1K."""
    for unit_bytes, suffix in _SIZES:
        # What would round to 1024 of a unit is 1 of the next.
        if abs(count_bytes) >= unit_bytes - unit_bytes // 2048:
            return f"{count_bytes / unit_bytes:.1f}".removesuffix(".0") + suffix
    return f"{count_bytes}B"


def span(duration_usec: int) -> str:
    """A duration as "3min 2s" or "1.2s": two units from a minute on, one unit below."""
    if duration_usec < 0:
        return f"-{span(-duration_usec)}"
    if duration_usec >= 60_000_000:
        words = []
        rest = duration_usec
        for unit_usec, name in _SPANS[:4]:
            whole, rest = divmod(rest, unit_usec)
            if whole:
                words.append(f"{whole}{name}")
        return " ".join(words[:2])
    for unit_usec, name in _SPANS[3:]:
        if duration_usec >= unit_usec:
            # Cut, not rounded: 59.96s must not become 60s, which is written 1min.
            tenths = duration_usec * 10 // unit_usec
            return f"{tenths // 10}{f'.{tenths % 10}' if tenths % 10 and tenths < 1000 else ''}{name}"
    return "0s"


def counted(count: int, noun: str) -> str:
    """ "1 session", "14 sessions"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first few names, the rest as an ellipsis: "alice, bob, carol…"."""
    return ", ".join(names[:most]) + ("…" if len(names) > most else "")


def joined(names: Sequence[str]) -> str:
    """All of them: "logind, systemd and the cgroup tree"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def printable(text: str) -> str:
    """`text` on one line without anything that could pass for another line, field or terminal command.

    Control, format and separator characters but the space, and bytes that are no UTF-8, become
    backslash escapes. Backslashes stay: unit names are full of them.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def quoted(text: str, most: int = 60) -> str:
    """`text` in quotes, printable and cut to `most` characters, for error messages."""
    return "'" + printable(text[:most]) + ("…" if len(text) > most else "") + "'"
