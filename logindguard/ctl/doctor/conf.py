"""Files of settings that others own: systemd's key=value files with drop-ins, and PAM stacks.

Hard facts:

- systemd-system.conf(5), logind.conf(5), journald.conf(5): the main file is the first found of /etc,
  /run, /usr/lib; drop-ins of all three are read in the order of their names, the same name in a
  higher directory hides the lower one; the last assignment of a key holds.
- pam.d(5): "@include NAME" (Debian) and "include"/"substack" as a control pull in another stack;
  the type may have a "-" in front, and the control may be several words in brackets.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..roots import Roots

_MOST_INCLUDES = 32
_PAM = re.compile(r"-?(?P<type>\w+)\s+(?P<control>\[[^]]*\]|\S+)\s+(?P<rest>\S.*)")


def read_text(path: Path) -> str | None:
    """None for what is not there, or not for us."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def setting(roots: Roots, name: str, key: str) -> str | None:
    """The value of `key` in systemd/`name` (for example "logind.conf"); None where nobody sets it."""
    value = None
    for path in _files(roots, name):
        for line in (read_text(path) or "").splitlines():
            given, equals, text = line.strip().partition("=")
            if equals and given.strip() == key:
                value = text.strip()
    return value


def _files(roots: Roots, name: str) -> list[Path]:
    directories = [roots.etc / "systemd", roots.run / "systemd", roots.usr / "lib/systemd"]
    main = next((path for place in directories if (path := place / name).exists()), None)
    dropins: dict[str, Path] = {}
    for directory in reversed(directories):
        try:
            dropins |= {path.name: path for path in (directory / f"{name}.d").iterdir()}
        except OSError:
            continue
    ordered = [path for _, path in sorted(dropins.items()) if path.suffix == ".conf"]
    return [*([main] if main else []), *ordered]


def is_true(value: str | None, default: bool) -> bool:
    """parse_boolean() of systemd; what is neither is the default."""
    match (value or "").lower():
        case "1" | "yes" | "y" | "true" | "t" | "on":
            return True
        case "0" | "no" | "n" | "false" | "f" | "off":
            return False
    return default


def pam_session(roots: Roots, stack: str) -> tuple[str, ...] | None:
    """Module and arguments of each session line of a stack, includes resolved; None without the stack."""
    if read_text(roots.etc / "pam.d" / stack) is None:
        return None
    return tuple(_pam_lines(roots, stack, [_MOST_INCLUDES]))


def _pam_lines(roots: Roots, stack: str, left: list[int]) -> list[str]:
    left[0] -= 1
    if left[0] < 0 or "/" in stack:
        return []
    lines: list[str] = []
    for line in (read_text(roots.etc / "pam.d" / stack) or "").replace("\\\n", " ").splitlines():
        text = line.partition("#")[0].strip()
        if text.startswith("@include"):
            lines += _pam_lines(roots, text.removeprefix("@include").strip(), left)
        elif (match := _PAM.fullmatch(text)) and match["type"] == "session":
            if match["control"] in ("include", "substack"):
                lines += _pam_lines(roots, match["rest"].strip(), left)
            else:
                lines.append(match["rest"].strip())
    return lines
