"""The verbs and options, one table: parser, help and the tests of the completions are made from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

QUERY, ACTION, SERVICE = "Query Commands", "Action Commands", "Service Commands"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """`name` is the attribute that the parsed value stands in; without `metavar` it is a flag."""

    name: str
    flags: tuple[str, ...]
    help: str
    metavar: str = ""
    choices: tuple[str, ...] = ()
    many: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    name: str
    group: str
    help: str
    arguments: str = ""  # as in the help: "[ID]" may be left out
    options: tuple[str, ...] = ()  # those that not every verb takes

    @property
    def least(self) -> int:
        return int(bool(self.arguments) and not self.arguments.startswith("["))

    @property
    def most(self) -> int:
        return int(bool(self.arguments))


OPTIONS: Final = {
    option.name: option
    for option in (
        Option(name="help", flags=("-h", "--help"), help="Show this help"),
        Option(name="version", flags=("--version",), help="Show the package version"),
        Option(name="no_pager", flags=("--no-pager",), help="Do not pipe output into a pager"),
        Option(name="no_legend", flags=("--no-legend",), help="Do not show headers and footers"),
        Option(name="full", flags=("-l", "--full"), help="Do not ellipsize, and explain what is well"),
        Option(name="quiet", flags=("-q", "--quiet"), help="Do not show what is no error and no result"),
        Option(
            name="json",
            flags=("--json",),
            metavar="MODE",
            choices=("pretty", "short", "off"),
            help="Show as JSON (pretty, short, off)",
        ),
        Option(name="j", flags=("-j",), help="JSON: pretty on a terminal, short elsewhere"),
        Option(
            name="no_ask_password", flags=("--no-ask-password",), help="Do not ask for a password (polkit)"
        ),
        Option(
            name="number",
            flags=("-n", "--lines", "--iterations"),
            metavar="N",
            help="How many journal lines, records, rounds or events",
        ),
        Option(name="since", flags=("-S", "--since"), metavar="DATE", help="Only what is not older"),
        Option(name="until", flags=("-U", "--until"), metavar="DATE", help="Only what is not newer"),
        Option(name="unit", flags=("-u", "--unit"), metavar="GLOB", help="Only of such units"),
        Option(
            name="by",
            flags=("--by",),
            metavar="WHAT",
            choices=("unit", "user", "trigger", "slice"),
            help="Group by unit, user, trigger or slice (default: unit)",
        ),
        Option(name="html", flags=("--html",), metavar="FILE", help="Write a page of HTML"),
        Option(
            name="files",
            flags=("--files",),
            metavar="DIR",
            many=True,
            help="Find the files below DIR whose page cache it is",
        ),
        Option(name="user", flags=("--user",), metavar="USER", help="Only of this user (name or uid)"),
        Option(name="reverse", flags=("-r", "--reverse"), help="Show the newest first"),
        Option(
            name="property",
            flags=("-p", "--property"),
            metavar="NAME",
            many=True,
            help="Show only such properties",
        ),
        Option(name="value", flags=("--value",), help="Show values without their names"),
        Option(name="batch", flags=("-b", "--batch"), help="Run without a terminal, line by line"),
        Option(
            name="delay", flags=("-d", "--delay"), metavar="TIME", help="Time between rounds (default: 2s)"
        ),
        Option(name="dry_run", flags=("--dry-run",), help="Only show what would be written"),
        Option(name="wait", flags=("-w", "--wait"), help="Wait until it is done"),
        Option(
            name="threshold",
            flags=("--threshold",),
            metavar="N",
            help="Dying memcgs that are still well (default: 2000)",
        ),
        Option(name="for_", flags=("--for",), metavar="TIME", help="Go on by itself after this time"),
    )
}
EVERYWHERE: Final = (
    *("help", "version", "no_pager", "no_legend", "full", "quiet", "json", "j", "no_ask_password"),
)

VERBS: Final = {
    verb.name: verb
    for verb in (
        Verb(
            name="status",
            group=QUERY,
            help="Show the mode, what is dying and what was done",
            options=("number",),
        ),
        Verb(name="list", group=QUERY, help="List what is dying, by cgroup"),
        Verb(
            name="history",
            group=QUERY,
            help="List past reclaims",
            options=("since", "until", "unit", "user", "number", "reverse"),
        ),
        Verb(
            name="show",
            group=QUERY,
            arguments="ID|UNIT",
            help="Show a reclaim, or the last one of a unit",
            options=("property", "value"),
        ),
        Verb(
            name="blame",
            group=QUERY,
            help="Tell who leaves dying memcgs behind",
            options=("by", "since", "number"),
        ),
        Verb(
            name="explain",
            group=QUERY,
            arguments="CGROUP",
            help="Tell what holds the dying memcgs of a cgroup",
            options=("files", "number"),
        ),
        Verb(
            name="report",
            group=QUERY,
            help="Show a week, or the time since a date",
            options=("since", "html"),
        ),
        Verb(
            name="inventory",
            group=QUERY,
            arguments="[CGROUP]",
            help="List single dying memcgs, where the kernel does",
            options=("number",),
        ),
        Verb(name="metrics", group=QUERY, help="Show all figures as Prometheus reads them"),
        Verb(
            name="top",
            group=QUERY,
            help="Show what is dying, by slice, again and again",
            options=("batch", "number", "delay"),
        ),
        Verb(name="monitor", group=QUERY, help="Show reclaims as they happen", options=("number",)),
        Verb(
            name="check",
            group=QUERY,
            help="Tell by the exit status whether few memcgs are dying",
            options=("threshold",),
        ),
        Verb(name="doctor", group=QUERY, help="Tell whether this host leaks, and what changes that"),
        Verb(
            name="sweep",
            group=ACTION,
            arguments="[CGROUP]",
            help="Sweep now, everything or one subtree",
            options=("dry_run", "wait"),
        ),
        Verb(
            name="reclaim",
            group=ACTION,
            arguments="UNIT|SESSION",
            help="Reclaim what is dying under a unit or session",
            options=("dry_run", "wait"),
        ),
        Verb(name="pause", group=ACTION, help="Stop reclaiming", options=("for_",)),
        Verb(name="resume", group=ACTION, help="Go on reclaiming"),
        Verb(name="restore", group=ACTION, help="Put back memory.min that a killed run left raised"),
        Verb(name="config", group=SERVICE, help="Show the settings and where each comes from"),
        Verb(name="reload", group=SERVICE, help="Let the service read its settings again"),
    )
}
DEFAULT_VERB: Final = "status"


def help_text() -> str:
    """What --help prints."""
    lines = [
        "logindguardctl [OPTIONS...] [COMMAND ...]",
        "",
        "Show and steer the release of page cache that dying memory cgroups hold.",
    ]
    for group in (QUERY, ACTION, SERVICE):
        lines += ["", f"{group}:"]
        lines += [
            _row(f"{verb.name} {verb.arguments}".strip(), verb.help)
            for verb in VERBS.values()
            if verb.group == group
        ]
    lines += ["", "Options:"]
    lines += [_row(_spelt(option), option.help) for option in OPTIONS.values()]
    return "\n".join([*lines, "", "See the logindguardctl(1) man page for details."])


def _row(left: str, right: str) -> str:
    gap = "" if len(left) < 23 else "\n" + " " * 26
    return f"  {left:<23} {right}" if not gap else f"  {left}{gap}{right}"


def _spelt(option: Option) -> str:
    short = next((flag for flag in option.flags if not flag.startswith("--")), "")
    long = next((flag for flag in option.flags if flag.startswith("--")), "")
    if option.metavar:
        long = f"{long}={option.metavar}"
    return f"{short or '  '} {long}".rstrip()
