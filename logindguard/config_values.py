"""What each setting may be: its kind, its range, and how it is written by hand.

The keys are the field names of config.py without their unit: `settle: 300ms` sets
`settle_usec`. Kinds follow from the suffix, so that a new field needs only its range here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from fractions import Fraction
from typing import Any

from . import text
from .config import MIB, SEC, Config

Value = int | float | str

MINUTE = 60 * SEC
DAY = 1440 * MINUTE

# Lowest and highest value of every quantity. Where harm grows with a value, the bound is the harm.
RANGES: dict[str, tuple[float, float]] = {
    "teardown.settle": (0, 10 * SEC),
    "teardown.settle_max": (0, MINUTE),
    "teardown.hook_deadline": (10_000, 180_000),
    "reclaim.keep_mapped_above": (0, 1024 * 1024 * MIB),
    "reclaim.write": (500, 100_000),
    "reclaim.window": (10_000, 1 * SEC),
    "reclaim.predicted_write": (1_000, 1 * SEC),
    "reclaim.min_headroom": (4 * MIB, 1024 * 1024 * MIB),
    "reclaim.shared_ratio": (0, 1),
    "sweep.interval": (10 * SEC, DAY),
    "sweep.cpu_percent": (0.1, 100),
    "sweep.retry_first": (1 * SEC, 60 * MINUTE),
    "sweep.retry_max": (1 * SEC, DAY),
    "sweep.grace_dying": (0, 100_000_000),
    "sweep.grace": (0, DAY),
    "pressure.pause_percent": (0.1, 100),
    "pressure.resume_percent": (0, 100),
    "metrics.interval": (5 * SEC, 60 * MINUTE),
    "metrics.sample": (0, 7 * DAY),
}

# What two settings must be to each other.
ORDERED = (
    ("teardown.settle", "at most", "teardown.settle_max"),
    ("reclaim.write", "at most", "reclaim.window"),
    ("sweep.retry_first", "at most", "sweep.retry_max"),
    ("pressure.resume_percent", "below", "pressure.pause_percent"),
)

# systemd.time(7), without months and years.
_USEC = {
    name: factor
    for names, factor in (
        ("us usec µs μs", 1),
        ("ms msec", 1_000),
        ("s sec second seconds", SEC),
        ("m min minute minutes", MINUTE),
        ("h hr hour hours", 60 * MINUTE),
        ("d day days", DAY),
        ("w week weeks", 7 * DAY),
    )
    for name in names.split()
}
_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,9})?"
_SPAN = re.compile(rf"\s*({_NUMBER})\s*([a-zµμ]+)")
_SIZE = re.compile(rf"({_NUMBER})\s*([KMGT]?)(?:iB)?")
_PERCENT = re.compile(rf"({_NUMBER})\s*%?")
_RATIO = re.compile(_NUMBER)
_COUNT = re.compile(r"[0-9]{1,15}")
# What systemd allows in a unit name, and the wildcards of fnmatch(3).
_GLOB = re.compile(r"[A-Za-z0-9:_.\\@*?\[\]!-]{1,255}")
_SWITCH = {"yes": True, "no": False, "on": True, "off": False, "true": True, "false": False}
_LEVELS = ("debug", "info", "warning", "error")


def parse_span(written: str) -> int:
    """Microseconds of "300ms" or "1min 30s"; only 0 needs no unit. ValueError otherwise."""
    if written == "0":
        return 0
    total, position = Fraction(0), 0
    while position < len(written) or position == 0:
        match = _SPAN.match(written, position)
        if match is None or match[2] not in _USEC:
            raise ValueError(written)
        total += Fraction(match[1]) * _USEC[match[2]]
        position = match.end()
    return round(total)


def parse_size(written: str) -> int:
    """Bytes of "64M", "1.5G" (base 1024) or of a plain number. ValueError otherwise."""
    match = _SIZE.fullmatch(written)
    if match is None or (written.endswith("iB") and not match[2]):
        raise ValueError(written)
    return round(Fraction(match[1]) * _BYTES[match[2]])


def _parse_percent(written: str) -> float:
    match = _PERCENT.fullmatch(written)
    if match is None:
        raise ValueError(written)
    return float(match[1])


def _parse_ratio(written: str) -> float:
    if not _RATIO.fullmatch(written):
        raise ValueError(written)
    return float(written)


def _parse_switch(written: str) -> bool:
    if written not in _SWITCH:
        raise ValueError(written)
    return _SWITCH[written]


def _parse_count(written: str) -> int:
    if not _COUNT.fullmatch(written):
        raise ValueError(written)
    return int(written)


def _parse_level(written: str) -> str:
    if written not in _LEVELS:
        raise ValueError(written)
    return written


def _parse_root(written: str) -> str:
    parts = written.split("/")
    normal = written == "/" or (parts[0] == "" and parts[1:] and not {"", ".", ".."} & set(parts[1:]))
    if not normal or not written.isprintable():
        raise ValueError(written)
    return written


def _parse_textfile(written: str) -> str:
    """The collector takes no notice of files with other endings. "" is off."""
    if written in ("", "off", "no"):
        return ""
    parts = written.split("/")
    normal = parts[0] == "" and not {"", ".", ".."} & set(parts[1:])
    if not (normal and written.endswith(".prom") and written.isprintable()):
        raise ValueError(written)
    return written


def _parse_glob(written: str) -> str:
    if not _GLOB.fullmatch(written):
        raise ValueError(written)
    return written


@dataclass(frozen=True, slots=True)
class Kind:
    noun: str
    parse: Callable[[str], Value]
    show: Callable[[Any], str] = str


SPAN = Kind("a duration with its unit", parse_span, text.span)
SIZE = Kind("a size", parse_size, text.size)
PERCENT = Kind("a number of percent", _parse_percent, "{:g}".format)
RATIO = Kind("a number", _parse_ratio, "{:g}".format)
SWITCH = Kind("yes or no", _parse_switch, lambda value: "yes" if value else "no")
COUNT = Kind("a whole number", _parse_count)
LEVEL = Kind(f"one of {', '.join(_LEVELS)}", _parse_level)
ROOT = Kind("cgroup paths such as /user.slice, absolute and without '.', '..' or empty parts", _parse_root)
TEXTFILE = Kind(
    "off, or the absolute path of a file that ends in .prom", _parse_textfile, lambda path: path or "off"
)
GLOB = Kind("globs over unit names such as session-*.scope", _parse_glob)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One setting: where it goes in Config, and what may be written for it."""

    key: str  # as written: "teardown.settle"
    section: str | None  # the field of Config that holds it, None at the top
    field: str  # "settle_usec"
    kind: Kind
    many: bool  # a list of values of the kind

    def parse(self, written: str) -> Value:
        """The value of one item. ValueError when it is not of the kind or out of range."""
        value = self.kind.parse(written)
        if self.key in RANGES:
            low, high = RANGES[self.key]
            if not isinstance(value, str) and not low <= value <= high:
                raise ValueError(written)
        return value

    @property
    def expects(self) -> str:
        if self.many:
            return f"a list of {self.kind.noun}"
        if self.key not in RANGES:
            return self.kind.noun
        low, high = (self.kind.show(bound) for bound in RANGES[self.key])
        return f"{self.kind.noun} from {low} to {high}"


def _kind(field: str, value: object) -> Kind:
    for suffix, kind in (("_usec", SPAN), ("_bytes", SIZE), ("_percent", PERCENT)):
        if field.endswith(suffix):
            return kind
    named = {"log_level": LEVEL, "roots": ROOT, "include": GLOB, "exclude": GLOB, "textfile": TEXTFILE}
    if isinstance(value, bool):
        return SWITCH
    if isinstance(value, float):
        return RATIO
    return COUNT if isinstance(value, int) else named[field]


def _rules() -> dict[str, Rule]:
    rules = {}

    def add(holder: Any, section: str | None) -> None:
        for item in fields(holder):
            value = getattr(holder, item.name)
            if is_dataclass(value):
                add(value, item.name)
                continue
            name = item.name.removesuffix("_usec").removesuffix("_bytes")
            key = f"{section}.{name}" if section else name
            kind = _kind(item.name, value)
            many = isinstance(value, tuple)
            rules[key] = Rule(key=key, section=section, field=item.name, kind=kind, many=many)

    add(Config(), None)
    return rules


RULES = _rules()
SECTIONS = {rule.section: None for rule in RULES.values() if rule.section}.keys()
