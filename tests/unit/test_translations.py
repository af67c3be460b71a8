"""What polkit shows people can be translated: the template is the policy's, the translations are whole."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

TOP = Path(__file__).parents[2]
POLICY = TOP / "polkit" / "org.logindguard1.policy"
PO = TOP / "polkit" / "po"


def messages(po: str) -> list[str]:
    """The msgids, which may stand on several lines."""
    found = re.findall(r'^msgid ((?:"(?:.*)"\n)+)', po, re.MULTILINE)
    return ["".join(re.findall(r'"(.*)"', lines)) for lines in found][1:]  # the first is the header


def shown() -> list[str]:
    return [
        element.text or ""
        for action in ElementTree.parse(POLICY).iter("action")
        for element in action
        if element.tag in ("description", "message")
    ]


def test_the_policy_says_where_translations_are() -> None:
    for element in ElementTree.parse(POLICY).iter():
        if element.tag in ("description", "message"):
            assert element.get("gettext-domain") == "logindguard"


def test_the_template_is_that_of_the_policy() -> None:
    """`make pot` makes it anew."""
    made = subprocess.run(
        ["xgettext", f"--its={PO / 'polkit.its'}", "--from-code=UTF-8", "-o", "-", POLICY],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    template = (PO / "logindguard.pot").read_text()
    assert messages(template) == messages(made) == shown()


@pytest.mark.parametrize("po", sorted(PO.glob("*.po")), ids=lambda po: po.stem)
def test_translations_are_whole(po: Path) -> None:
    done = subprocess.run(
        ["msgfmt", "--check", "--statistics", "-o", "/dev/null", po],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"{len(shown())} translated messages.\n"
