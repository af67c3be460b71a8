"""Reads the settings: one YAML file and its drop-ins, merged in order, with the place each came from.

Only the node tree of the YAML is used, never its idea of types: `on`, `010` and `1:30` mean what
stands there, and every error can name its line. A later file replaces single settings (a list as
a whole), not sections.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .config import Config
from .config_values import ORDERED, RULES, SECTIONS, Rule, Value
from .text import printable, quoted

if TYPE_CHECKING:
    import yaml

    Node = yaml.ScalarNode | yaml.SequenceNode | yaml.MappingNode

DEFAULT_FILE = Path("/etc/logindguard/config.yaml")
DEFAULT_DROPINS = Path("/etc/logindguard/config.d")

MAX_FILE_BYTES = 64 << 10
MAX_DEPTH = 4  # settings are at most three deep: section, list, item

Setting = Value | tuple[Value, ...]


class ConfigError(Exception):
    """One sentence that names the file, the line and the key, and what is expected there."""

    def __init__(self, sentence: str, *, file: Path, line: int | None = None, key: str | None = None) -> None:
        where = printable(str(file)) + (f":{line}" if line is not None else "")
        super().__init__(f"{where}: {sentence}")
        self.file = file
        self.line = line
        self.key = key


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and for each key "file:line" or "default"."""

    config: Config
    origins: dict[str, str]
    files: tuple[Path, ...] = ()  # that were read, in their order


@dataclass(frozen=True, slots=True)
class _Place:
    file: Path
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def load(path: Path = DEFAULT_FILE, dropins: Path | None = DEFAULT_DROPINS) -> Loaded:
    """The settings of `path` and of `dropins`/*.yaml, later files winning in lexical order.

    `path` may be missing only where it is DEFAULT_FILE, `dropins` always. ConfigError for
    everything else that is wrong.
    """
    values: dict[str, Setting] = {}
    places: dict[str, _Place] = {}
    files = _files(path, dropins)
    for file in files:
        for rule, value, line in _settings(file):
            values[rule.key] = value
            places[rule.key] = _Place(file, line)
    config = _build(values)
    _check_together(config, places)
    return Loaded(config, {key: str(places.get(key, "default")) for key in RULES}, tuple(files))


def _files(path: Path, dropins: Path | None) -> list[Path]:
    found = [] if path == DEFAULT_FILE and _is_missing(path) else [path]
    if dropins is None:
        return found
    try:
        names = sorted(entry.name for entry in dropins.iterdir())
    except FileNotFoundError:
        return found
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}.", file=dropins) from error
    for name in names:
        if name.endswith(".yml") and not name.startswith("."):
            raise ConfigError("is not read, because a drop-in must end in .yaml.", file=dropins / name)
    return found + [dropins / name for name in names if name.endswith(".yaml") and not name.startswith(".")]


def _is_missing(path: Path) -> bool:
    """Not for a dangling link, nor for what only cannot be reached: opening it tells what is wrong."""
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _text(file: Path) -> str:
    try:
        # Not to wait for a writer, should it be a pipe.
        with open(file, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise ConfigError("is not a regular file.", file=file)
            data = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}.", file=file) from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"is larger than {MAX_FILE_BYTES >> 10}K, which no settings are.", file=file)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = f"0x{data[error.start]:02x}"
        raise ConfigError(f"is not UTF-8 text: byte {byte}.", file=file, line=line) from error


def _compose(file: Path) -> Node | None:
    text = _text(file)
    if all(not line or line.startswith("#") for line in map(str.strip, text.splitlines())):
        return None
    import yaml  # here, because most machines change no setting and need no parser in memory

    class Composer(yaml.SafeLoader):
        depth = 0

        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # no stub for it
            line = event.start_mark.line + 1
            if event.anchor is not None:
                # A few lines of them can stand for gigabytes.
                raise ConfigError("YAML anchors and aliases are not accepted.", file=file, line=line)
            if self.depth >= MAX_DEPTH:
                raise ConfigError("is nested deeper than any setting.", file=file, line=line)
            self.depth += 1
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

    try:
        loader = Composer(text)
        try:
            return cast("Node | None", loader.get_single_node())
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        sentence = f"holds a character that YAML does not allow: {quoted(chr(error.character))}."
        raise ConfigError(sentence, file=file, line=line) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        sentence = f"is not valid YAML: {printable(error.problem or error.context or 'unknown error')}."
        raise ConfigError(sentence, file=file, line=mark.line + 1 if mark else None) from error


def _settings(file: Path) -> Iterator[tuple[Rule, Setting, int]]:
    """Every setting that `file` makes, with its line."""
    root = _compose(file)
    if root is None or _is_null(root):
        return
    for key, node, line in _entries(root, file, ""):
        if key in SECTIONS:
            # `teardown:` with nothing below it, everything being commented out
            if not _is_null(node):
                for inner, setting, inner_line in _entries(node, file, key):
                    rule = _rule(inner, file, inner_line)
                    yield rule, _value(rule, setting, file, inner_line), inner_line
        else:
            rule = _rule(key, file, line)
            yield rule, _value(rule, node, file, line), line


def _entries(mapping: Node, file: Path, section: str) -> Iterator[tuple[str, Node, int]]:
    """Dotted key, node and line of each entry."""
    if mapping.id != "mapping":
        what = section or "the file"
        names = [key.removeprefix(f"{section}.") for key in RULES if key.startswith(f"{section}.")]
        names = names or [*SECTIONS, *(key for key in RULES if "." not in key)]
        line = mapping.start_mark.line + 1
        sentence = f"{what} expects settings as 'key: value' ({', '.join(names)}), not {_shown(mapping)}."
        raise ConfigError(sentence, file=file, line=line, key=section or None)
    seen: dict[str, int] = {}
    for name, node in mapping.value:
        line = name.start_mark.line + 1
        if name.id != "scalar":
            raise ConfigError(f"expects a plain word as a key, not {_shown(name)}.", file=file, line=line)
        key = f"{section}.{name.value}" if section else name.value
        if key in seen:
            sentence = f"{printable(key)} is given twice, first on line {seen[key]}."
            raise ConfigError(sentence, file=file, line=line, key=key)
        seen[key] = line
        yield key, node, line


def _rule(key: str, file: Path, line: int) -> Rule:
    try:
        return RULES[key]
    except KeyError:
        pass
    from difflib import get_close_matches  # only to explain a mistake

    # `settle: 1s` at the top or below the wrong section, then a slip of the pen there.
    by_name = {known.rpartition(".")[2]: known for known in (*RULES, *SECTIONS)}
    name = key.rpartition(".")[2]
    near = [by_name[name]] if name in by_name else get_close_matches(key, [*RULES, *SECTIONS], 1, 0.7)
    near = near or [by_name[match] for match in get_close_matches(name, by_name, 1, 0.7)]
    hint = f"; did you mean {near[0]}?" if near else "."
    raise ConfigError(f"unknown key {quoted(key)}{hint}", file=file, line=line, key=key)


def _value(rule: Rule, node: Node, file: Path, line: int) -> Setting:
    items = node.value if rule.many and node.id == "sequence" else [node]
    parsed = []
    for item in items:
        line = item.start_mark.line + 1
        try:
            if item.id != "scalar" or _is_null(item) or (rule.many and item is node):
                raise ValueError
            parsed.append(rule.parse(item.value))
        except ValueError:
            sentence = f"{rule.key} expects {rule.expects}, not {_shown(item)}."
            raise ConfigError(sentence, file=file, line=line, key=rule.key) from None
    return tuple(parsed) if rule.many else parsed[0]


def _is_null(node: Node) -> bool:
    return bool(node.tag == "tag:yaml.org,2002:null")


def _shown(node: Node) -> str:
    if _is_null(node):
        return "nothing"
    return quoted(node.value) if node.id == "scalar" else f"a {node.id}"


def _build(values: dict[str, Setting]) -> Config:
    top: dict[str, Any] = {}
    sections: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        rule = RULES[key]
        (sections.setdefault(rule.section, {}) if rule.section else top)[rule.field] = value
    config = Config()
    top |= {name: replace(getattr(config, name), **inner) for name, inner in sections.items()}
    return replace(config, **top)


def _check_together(config: Config, places: dict[str, _Place]) -> None:
    """What two settings must be to each other, whichever files they come from."""
    for low, relation, high in ORDERED:
        values = _get(config, low), _get(config, high)
        if values[0] < values[1] or (relation == "at most" and values[0] == values[1]):
            continue
        # One of them at least was written, since the defaults fit.
        key = low if low in places else high
        shown = [f"{name} ({RULES[name].kind.show(_get(config, name))})" for name in (low, high)]
        sentence = f"{shown[0]} must be {relation} {shown[1]}."
        raise ConfigError(sentence, file=places[key].file, line=places[key].line, key=key)


def _get(config: Config, key: str) -> Any:
    rule = RULES[key]
    return getattr(getattr(config, rule.section) if rule.section else config, rule.field)
