"""The pictures in docs/pictures: the page of a report, and what a terminal shows. Run by `make pictures`.

A browser out of Debian's packages takes them, in a tree of its own below build/: nothing is installed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from html import escape
from pathlib import Path
from unittest.mock import patch

from logindguard.ctl.report_page import page
from logindguard.ctl.terminal import Colour
from logindguard.model import Mode, Outcome, Phase, ReclaimRecord, Source, Teardown, Way
from logindguard.report import Books
from tests.ctl.fake_service import MIB, NOW_USEC, SEC
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
    take(report, "report", 1100, 1480)
    take(report, "report-dark", 1100, 1480, DARK)
    take(report, "report-phone", 390, 1950)
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
    books = Books()
    dying = {}
    for record in week():
        books.book(record)
        dying[record.target] = record.dying_after
    report = books.close(
        samples(),
        begin_usec=NOW_USEC - 7 * 86_400 * SEC,
        end_usec=NOW_USEC,
        dying=dying,
        reasons=dict.fromkeys(ENDED, "waits for writeback"),
        residue_bytes=samples()[-1].residue_bytes,
    )
    with patch("logindguard.ctl.owners.user_name", lambda uid: USERS.get(uid, str(uid))):
        return page(report, "example")


ENDED = {  # each hour, by where it hangs dying: unit, uid, PAM service, how many
    "/user.slice": (("session-{}.scope", 61001, "sshd", 24), ("session-{}.scope", 61002, "sshd", 8)),
    "/system.slice": (("cron-backup.service", None, None, 8),),
}


def week() -> Iterator[ReclaimRecord]:
    """What ended in each hour, four fifths of it sessions; as much stays as the samples say."""
    left = dict.fromkeys(ENDED, 0)
    for hour, sample in enumerate(samples()):
        for parent, kinds in ENDED.items():
            ended = tuple(
                teardown(unit.format(number), f"{parent}/{unit.format(number)}", uid, service)
                for unit, uid, service, count in kinds
                for number in range(count)
            )
            before = left[parent] + len(ended)
            left[parent] = min(before, sample.dying * len(ended) // 40)
            gone = before - left[parent]
            yield ReclaimRecord(
                id=f"{hour:032x}",
                realtime_usec=sample.realtime_usec,
                way=Way.AFTER,
                target=parent,
                target_inode=1,
                outcome=Outcome.PARTIAL,
                reason="",
                mode=Mode.PRECISE,
                teardowns=ended,
                dying_before=before,
                dying_after=left[parent],
                freed_bytes=gone * 5 * MIB,
                writes=gone,
                cpu_usec=gone * 900,
                longest_write_usec=1900 + hour,
            )


def teardown(unit: str, path: str, uid: int | None, service: str | None) -> Teardown:
    return Teardown(
        unit=unit,
        path=path,
        inode=0,
        phase=Phase.ENDED,
        source=Source.SYSTEMD1,
        heard_usec=0,
        uid=uid,
        service=service,
    )


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
