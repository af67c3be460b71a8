"""The pictures in docs/pictures: the page of a report, and what a terminal shows. Run by `make pictures`.

A browser out of Debian's packages takes them, in a tree of its own below build/: nothing is installed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from html import escape
from pathlib import Path
from unittest.mock import patch

from logindguard.ctl.past import to_record
from logindguard.ctl.report_page import page
from logindguard.ctl.terminal import Colour
from logindguard.report import Books
from tests.ctl.fake_service import GIB, MIB, NOW_USEC, RECORDS, RESIDUES, SEC
from tests.ctl.past import samples

TOP = Path(__file__).parents[1]
BROWSER = TOP / "build" / "browser"
PICTURES = TOP / "docs" / "pictures"
GOLDEN = TOP / "tests" / "ctl" / "golden"
DARK = "--blink-settings=preferredColorScheme=0"
DEADLINE_SEC = 900
USERS = {61001: "alice", 61002: "bob"}

_INKS = {
    Colour.RED: "#ff7b72",
    Colour.GREEN: "#7ee787",
    Colour.YELLOW: "#e3b341",
    Colour.BLUE: "#79c0ff",
    Colour.GREY: "#8b949e",
}
_ESCAPE = re.compile(r"(\x1b\[[0-9;]*m)")
_TERMINAL = """<!DOCTYPE html><meta charset="utf-8"><style>body { margin: 0; background: #0d1117; }
pre { margin: 0; padding: 16px; color: #e6edf3; font: 14px/17px "DejaVu Sans Mono", monospace; }</style>"""


def main() -> None:
    if not BROWSER.exists():
        fetch_browser()
    PICTURES.mkdir(parents=True, exist_ok=True)
    report = report_page()
    take(report, "report", 1100, 1720)
    take(report, "report-dark", 1100, 1720, DARK)
    take(report, "report-phone", 390, 2100)
    for name in ("top", "report", "blame"):
        text = (GOLDEN / f"{name}-80-colour.txt").read_text()
        lines = text.splitlines()
        width = max(len(_ESCAPE.sub("", line)) for line in lines)
        take(terminal(text), f"terminal-{name}", 32 + round(width * 8.43), 32 + round(len(lines) * 17))


def fetch_browser() -> None:
    BROWSER.parent.mkdir(exist_ok=True)
    packages = "chromium-headless-shell,fonts-dejavu-core"
    command = ("mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}", "bookworm")
    unfinished = BROWSER.with_name(".browser")
    shutil.rmtree(unfinished, ignore_errors=True)
    subprocess.run([*command, unfinished], check=True, timeout=DEADLINE_SEC)
    unfinished.rename(BROWSER)


def take(document: str, name: str, width: int, height: int, *options: str) -> None:
    """A picture of a document at that size, in CSS pixels."""
    (BROWSER / "tmp/page.html").write_text(document)
    # Without a network: what a picture shows came from the document alone.
    within = ["unshare", "--net", "--mount", "--pid", "--fork", f"--root={BROWSER}", "--mount-proc"]
    program = [*within, "chromium-headless-shell", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    shown = [f"--window-size={width},{height}", "--hide-scrollbars", *options]
    subprocess.run(
        [*program, *shown, "--screenshot=/tmp/page.png", "file:///tmp/page.html"],
        check=True,
        timeout=DEADLINE_SEC,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp", "TZ": "UTC"},
        stderr=subprocess.DEVNULL,
    )
    shutil.copyfile(BROWSER / "tmp/page.png", PICTURES / f"{name}.png")


def report_page() -> str:
    """The week of tests/ctl/past.py."""
    begin_usec = NOW_USEC - 7 * 86_400 * SEC
    books = Books()
    for row in reversed(RECORDS):
        if row["realtime_usec"] >= begin_usec:
            books.book(to_record(row))
    report = books.close(
        samples(),
        begin_usec=begin_usec,
        end_usec=NOW_USEC,
        dying={row["path"]: row["dying"] for row in RESIDUES},
        reasons={row["path"]: row.get("reason", "") for row in RESIDUES},
        residue_bytes=GIB + 232 * MIB,
    )
    with patch("logindguard.ctl.owners.user_name", lambda uid: USERS.get(uid, str(uid))):
        return page(report, "example")


def terminal(text: str) -> str:
    """Lines with colours as a document."""
    shown, open_ = [], False
    for part in _ESCAPE.split(text):
        if not part.startswith("\x1b"):
            shown.append(escape(part))
            continue
        shown.append("</span>" if open_ else "")
        open_ = part != "\x1b[0m"
        if open_:
            shown.append(f'<span style="{_style(part)}">')
    return f"{_TERMINAL}<pre>{''.join(shown)}</pre>"


def _style(sequence: str) -> str:
    if sequence == Colour.UNDERLINE:
        return "text-decoration: underline"
    return f"font-weight: bold; color: {_INKS.get(Colour(sequence), 'inherit')}"


if __name__ == "__main__":
    main()
