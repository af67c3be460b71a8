"""The command line of logindguardd."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import __version__
from .config_file import DEFAULT_DROPINS, DEFAULT_FILE

RUNTIME_DIRECTORY = Path("/run/logindguard")

HELP = """\
Releases the page cache that dying memory cgroups hold.

Stays in the foreground, with or without a service manager, a system bus or
logind. Tells in the journal what it does, or on standard error where systemd
did not start it."""
HELP_AFTER = """\
SIGTERM and SIGINT end it, SIGHUP makes it read its settings again.

exit status: 0 ended as asked, 2 wrong arguments, 69 no memory controller,
70 internal error, 71 the kernel refused, 73 no place for the ledger,
77 not root, 78 wrong settings"""


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="logindguardd",
        description=HELP,
        epilog=HELP_AFTER,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"logindguard {__version__}")
    parser.add_argument(
        "--config", type=Path, metavar="FILE",
        help=f"settings (default: {DEFAULT_FILE}, if there is one, then {DEFAULT_DROPINS}/*.yaml)",
    )  # fmt: skip
    parser.add_argument(
        "--json", action="store_true", help="each entry on standard output too, as a line of JSON"
    )
    parser.add_argument(
        "--restore", action="store_true", help="put back memory.min that a killed run left, and exit"
    )
    parser.add_argument(
        "--runtime-directory", type=Path, default=RUNTIME_DIRECTORY, metavar="DIRECTORY",
        help="where the ledger of what is shielded is kept (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--bus-address", metavar="ADDRESS", help="a bus other than the system's")
    return parser.parse_args(argv)
