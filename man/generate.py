"""Makes the man pages: what code, settings file and D-Bus interface say themselves is put into man/*.in.

python3 man/generate.py DIRECTORY
"""

from __future__ import annotations

import itertools
import re
import sys
import textwrap
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable
from email.utils import parsedate_to_datetime
from pathlib import Path

HERE = Path(__file__).parent
TOP = HERE.parent
sys.path.insert(0, str(TOP))

from logindguard import __version__  # noqa: E402
from logindguard.config import Config  # noqa: E402
from logindguard.config_values import RULES, SECTIONS, Rule  # noqa: E402
from logindguard.ctl.exits import MEANING  # noqa: E402

XML = TOP / "dbus" / "org.logindguard1.Manager.xml"
SETTINGS = TOP / "units" / "config.yaml"


def roff(text: str) -> str:
    """Text as it stands: no character of it is an instruction to roff."""
    escaped = re.sub(r"\s+", " ", text.strip()).replace("\\", "\\e").replace("-", "\\-")
    escaped = re.sub(r"`([^`]+)`", r"\\fI\1\\fP", escaped)
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def paragraph(text: str) -> list[str]:
    return [
        roff(sentence) for sentence in re.split(r"(?<=[.:]) +(?=[A-Z])", re.sub(r"\s+", " ", text.strip()))
    ]


def entry(*terms: str, text: Iterable[str]) -> list[str]:
    """A tagged paragraph; of several terms each has its own line."""
    return [line for n, term in enumerate(terms) for line in (".TQ" if n else ".TP", f".B {term}")] + [*text]


def wrapped(source: str) -> str:
    """Lines of text of at most 80 characters, which mandoc -Tlint asks for; what stands as it is stays."""
    lines: list[str] = []
    verbatim = False
    for line in source.splitlines():
        verbatim = (verbatim or line in (".EX", ".nf")) and line not in (".EE", ".fi")
        if verbatim or line.startswith("."):
            lines.append(line)
        else:
            parts = textwrap.wrap(line, 78, break_long_words=False, break_on_hyphens=False)
            lines += [f"\\&{part}" if part.startswith((".", "'")) else part for part in parts]
    return "\n".join(lines) + "\n"


def date() -> str:
    """Of the newest entry of the changelog."""
    [written] = re.findall(r"^ -- .*>  (.*)$", (TOP / "debian" / "changelog").read_text(), re.MULTILINE)[:1]
    return f"{parsedate_to_datetime(written):%Y-%m-%d}"


def exits() -> list[str]:
    return [
        line for status, meaning in MEANING.items() for line in entry(str(int(status)), text=[roff(meaning)])
    ]


def settings() -> list[str]:
    """From the comments of the settings file, each above what it explains, and from what the code takes."""
    lines: list[str] = []
    told: list[str] = []
    keys: list[str] = []
    section = ""

    def flush() -> None:
        text = paragraph(" ".join(told)) if told else []
        if keys:
            names = (roff(key.rpartition(".")[2]) for key in keys)
            takes = [[".br", roff(_takes(RULES[key], named=len(keys) > 1))] for key in keys]
            lines.extend(entry(*names, text=[*text, *itertools.chain(*takes)][0 if text else 1 :]))
        else:
            lines.extend(text)
        told.clear()
        keys.clear()

    _, _, body = SETTINGS.read_text().partition("\n\n")  # what the file says of itself, the page says too
    for line in body.splitlines():
        if not line:
            flush()
        elif match := re.match(r"#(  )?([a-z_]+):", line):
            if not match[1] and match[2] in SECTIONS:
                section = match[2]
                lines.append(f".SS {section}")
                flush()
            else:
                keys.append(f"{section}.{match[2]}" if match[1] else match[2])
        elif re.match(r"# \S", line):
            if keys:
                flush()
            told.append(line[2:])
    flush()
    return lines


def _takes(rule: Rule, *, named: bool) -> str:
    holder = getattr(Config(), rule.section) if rule.section else Config()
    value = getattr(holder, rule.field)
    shown = (", ".join(value) or "an empty list") if rule.many else rule.kind.show(value)
    expects = rule.expects if named else rule.expects[:1].upper() + rule.expects[1:]
    name = f"{rule.key.rpartition('.')[2]}: " if named else ""
    return f"{name}{expects}; by default {shown}."


def interface(kind: str, shape: Callable[[ElementTree.Element], str]) -> list[str]:
    """Members of one kind with the comment above each."""
    lines: list[str] = []
    comment = ""
    builder = ElementTree.TreeBuilder(insert_comments=True)
    [found] = ElementTree.parse(XML, ElementTree.XMLParser(target=builder)).iter("interface")
    for child in found:
        if child.tag is ElementTree.Comment:  # type: ignore[comparison-overlap]  # its stub knows no comments
            comment = child.text or ""
        else:
            if child.tag == kind:
                lines += entry(shape(child), text=paragraph(comment) if comment.strip() else [])
            comment = ""
    return lines


def introduction() -> list[str]:
    match = re.search(r"<node>\s*<!--(.*?)-->", XML.read_text(), re.DOTALL)
    return paragraph(match[1]) if match else []


def _args(element: ElementTree.Element, direction: str | None) -> str:
    return ", ".join(
        f"{arg.get('type')} {arg.get('name')}"
        for arg in element.iter("arg")
        if arg.get("direction") == direction
    )


def _method(element: ElementTree.Element) -> str:
    answer = _args(element, "out")
    return roff(f"{element.get('name')}({_args(element, 'in')}){f' -> {answer}' if answer else ''}")


def _signal(element: ElementTree.Element) -> str:
    return roff(f"{element.get('name')}({_args(element, None)})")


def _property(element: ElementTree.Element) -> str:
    return roff(f"{element.get('type')} {element.get('name')}")


def pages() -> dict[str, str]:
    """Name and roff source of each page."""
    parts = {
        "DATE": [date()],
        "VERSION": [__version__],
        "EXITS": exits(),
        "SETTINGS": settings(),
        "INTRODUCTION": introduction(),
        "METHODS": interface("method", _method),
        "SIGNALS": interface("signal", _signal),
        "PROPERTIES": interface("property", _property),
    }
    return {
        source.stem: wrapped(
            re.sub(r"@([A-Z]+)@", lambda match: "\n".join(parts[match[1]]), source.read_text())
        )
        for source in sorted(HERE.glob("*.in"))
    }


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (directory / name).write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
