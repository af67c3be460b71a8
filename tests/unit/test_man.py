"""The man pages say what the code does: no verb, option, setting, member or error is missing or too many."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from logindguard import options
from logindguard.config_values import RULES
from logindguard.ctl.command_line import ACTION, OPTIONS, QUERY, SERVICE, VERBS, Option
from logindguard.ctl.exits import Exit
from logindguard.dbus.names import Error
from logindguard.dbus.polkit import Action

TOP = Path(__file__).parents[2]
PAGES = ("logindguard.service.8", "logindguard.yaml.5", "logindguardctl.1", "org.logindguard1.5")


@dataclass
class Entry:
    """A tagged paragraph: its terms and the text below, without any markup."""

    section: str
    terms: list[str]
    text: str = ""


@dataclass
class Page:
    entries: list[Entry] = field(default_factory=list)
    text: str = ""

    def terms(self, section: str) -> list[str]:
        return [term for entry in self.entries if entry.section == section for term in entry.terms]


def plain(line: str) -> str:
    """What is left of a line of roff: alternating fonts join their arguments."""
    macro, _, rest = line.partition(" ")
    if macro in (".BR", ".BI", ".IR", ".RB", ".RI", ".B", ".I"):
        words = [quoted or bare for quoted, bare in re.findall(r'"([^"]*)"|(\S+)', rest)]
        rest = "".join(words) if len(macro) == 3 else " ".join(words)
    elif line.startswith("."):
        return ""
    else:
        rest = line
    return re.sub(r"\\f[A-Z]|\\&", "", rest).replace("\\-", "-")


def parse(source: str) -> Page:
    page = Page()
    section, term_follows = "", ""
    for line in source.splitlines():
        if line.startswith((".SH ", ".SS ")):
            section = line[4:].strip('"')
            page.entries.append(Entry(section, []))
        elif line in (".TP", ".TQ"):
            term_follows = line
        elif term_follows:
            if term_follows == ".TP":
                page.entries.append(Entry(section, []))
            page.entries[-1].terms.append(plain(line))
            term_follows = ""
        elif page.entries:
            page.entries[-1].text += plain(line) + "\n"
        page.text += plain(line) + "\n"
    return page


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("man")
    subprocess.run([sys.executable, TOP / "man" / "generate.py", directory], check=True)
    return directory


def page(made: Path, name: str) -> Page:
    return parse((made / name).read_text())


def test_all_pages_are_there(made: Path) -> None:
    assert sorted(file.name for file in made.iterdir()) == sorted(PAGES)
    assert not [file for file in made.iterdir() if re.search(r"@[A-Z]+@", file.read_text())]
    unit = (TOP / "units" / "logindguard.service").read_text()
    for name, number in re.findall(r"man:(\S+)\((\d)\)", unit):
        assert f"{name}.{number}" in PAGES
    for name in PAGES:
        for other, number in re.findall(r"(\S*logindguard\S*?) ?\((\d)\)", page(made, name).text):
            assert f"{other}.{number}" in PAGES, f"{name} refers to {other}({number})"


@pytest.mark.parametrize("name", PAGES)
def test_they_render_without_a_warning(made: Path, name: str) -> None:
    for command in (("groff", "-man", "-ww", "-Tutf8", "-K", "utf8"), ("mandoc", "-Tlint")):
        done = subprocess.run([*command, made / name], capture_output=True, text=True, check=False)
        assert done.stderr == "", command
        assert command[0] == "groff" or done.stdout == ""


@pytest.mark.parametrize("group", [QUERY, ACTION, SERVICE])
def test_every_verb_is_described(made: Path, group: str) -> None:
    found = page(made, "logindguardctl.1")
    verbs = [verb for verb in VERBS.values() if verb.group == group]
    assert found.terms(group.upper()) == [f"{verb.name} {verb.arguments}".strip() for verb in verbs]
    texts = {entry.terms[0].split()[0]: entry.text for entry in found.entries if entry.terms}
    for verb in verbs:
        flags = set(re.findall(r"(?<![\w-])--?[A-Za-z][a-z-]*", texts[verb.name]))
        known = {flag for option in OPTIONS.values() for flag in option.flags}
        told = {option for option in OPTIONS.values() if flags & {*option.flags}}
        assert {option.name for option in told} >= {*verb.options}, verb.name
        assert {option.name for option in told} <= {*verb.options, "full"}, verb.name
        assert flags <= known


def spelt(option: Option) -> str:
    metavar = f"={option.metavar}" if option.metavar else ""
    return ", ".join(flag + (metavar if flag.startswith("--") else "") for flag in option.flags)


def test_every_option_is_described(made: Path) -> None:
    found = page(made, "logindguardctl.1")
    assert found.terms("OPTIONS") == [spelt(option) for option in OPTIONS.values()]
    for entry in found.entries:
        if entry.section == "OPTIONS" and entry.terms:
            [option] = [each for each in OPTIONS.values() if spelt(each) == entry.terms[0]]
            assert all(choice in entry.text for choice in option.choices)
    assert found.terms("EXIT STATUS") == [str(int(status)) for status in Exit]


def test_the_service(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options.parse(["--help"])
    told = capsys.readouterr().out
    found = page(made, "logindguard.service.8")
    terms = found.terms("OPTIONS")
    assert terms == [flags.strip() for flags in re.findall(r"^  (-\S.*?)(?:  |$)", told, re.MULTILINE)]
    told_exits = re.findall(r"\b(\d+) [a-z]", told.partition("exit status:")[2])
    assert found.terms("EXIT STATUS") == told_exits
    unit = (TOP / "units" / "logindguard.service").read_text()
    [final] = re.findall(r"RestartPreventExitStatus=(.*)", unit)
    again = [status for status in told_exits if status not in ("0", *final.split())]
    assert f"after {', '.join(again[:-1])} and {again[-1]}," in found.text


def test_every_setting_with_its_default(made: Path) -> None:
    found = page(made, "logindguard.yaml.5")
    keys = [
        term if entry.section == "SETTINGS" else f"{entry.section}.{term}"
        for entry in found.entries
        for term in entry.terms
    ]
    assert keys == list(RULES)
    for entry in found.entries:
        assert entry.text.count("by default") == len(entry.terms), entry


def test_every_member_and_error_of_the_bus(made: Path) -> None:
    found = page(made, "org.logindguard1.5")
    xml = (TOP / "dbus" / "org.logindguard1.Manager.xml").read_text()
    for section, kind in (("METHODS", "method"), ("SIGNALS", "signal"), ("PROPERTIES", "property")):
        names = [name for term in found.terms(section) for name in re.findall(r"(?:^|\s)([A-Z]\w+)", term)]
        assert names == re.findall(rf'<{kind} name="(\w+)"', xml)
    assert {*found.terms("ERRORS"), *found.terms("THE HOOK")} == {*Error}
    assert {*found.terms("ACTIONS")} == {*Action}
