"""An interface as a table: what can be called, read and heard, and its introspection data.

Arguments are written as words of `name:signature`: "since_usec:t limit:u".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import quoteattr


@dataclass(frozen=True, slots=True)
class Later:
    """A body that takes long to put together and to marshal: 10 us a value. `build` runs on a thread."""

    build: Callable[[], list[Any]]


Handler = Callable[..., Awaitable[list[Any] | Later]]
"""Takes the Caller and the arguments, variants unwrapped; the body of the reply, or CallError."""

Answer = Callable[..., list[Any]]
"""Takes the object path and the arguments; answers at once, whoever asks."""

_HEADER = (
    '<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"\n'
    ' "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">\n'
)
_EMITS = "org.freedesktop.DBus.Property.EmitsChangedSignal"


@dataclass(frozen=True, slots=True)
class Arg:
    name: str
    signature: str


def args(words: str) -> tuple[Arg, ...]:
    return tuple(Arg(*word.split(":", 1)) for word in words.split())


def signature(words: str) -> str:
    return "".join(arg.signature for arg in args(words))


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One with a `handler` is told who calls, may take its time and counts against the caller's limits."""

    name: str
    takes: str = ""
    gives: str = ""
    handler: Handler | None = None
    answer: Answer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Property:
    """Read-only. `emits` is what the D-Bus specification calls it: true, invalidates, const or false."""

    name: str
    signature: str
    value: Callable[[], Any]
    emits: str = "false"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    name: str
    gives: str = ""


class Interface:
    """Methods, properties and signals by name."""

    def __init__(self, name: str, *members: Method | Property | Signal) -> None:
        self.name = name
        self.methods = {member.name: member for member in members if isinstance(member, Method)}
        self.properties = {member.name: member for member in members if isinstance(member, Property)}
        self.signals = {member.name: member for member in members if isinstance(member, Signal)}

    def xml(self) -> str:
        lines = [f" <interface name={quoteattr(self.name)}>"]
        for method in self.methods.values():
            given = [*_xml_args(method.takes, "in"), *_xml_args(method.gives, "out")]
            lines += _element("method", method.name, given)
        for item in self.properties.values():
            head = f'  <property name={quoteattr(item.name)} type={quoteattr(item.signature)} access="read">'
            lines += [head, f'   <annotation name="{_EMITS}" value="{item.emits}"/>', "  </property>"]
        for signal in self.signals.values():
            lines += _element("signal", signal.name, _xml_args(signal.gives, None))
        return "\n".join([*lines, " </interface>\n"])


def _xml_args(words: str, direction: str | None) -> list[str]:
    way = f' direction="{direction}"' if direction else ""
    return [f"   <arg name={quoteattr(a.name)} type={quoteattr(a.signature)}{way}/>" for a in args(words)]


def _element(kind: str, name: str, inside: list[str]) -> list[str]:
    if not inside:
        return [f"  <{kind} name={quoteattr(name)}/>"]
    return [f"  <{kind} name={quoteattr(name)}>", *inside, f"  </{kind}>"]


def node_xml(interfaces: list[Interface], children: list[str]) -> str:
    """Introspection data of one object, as the D-Bus specification wants it."""
    nodes = "".join(f" <node name={quoteattr(child)}/>\n" for child in children)
    return f"{_HEADER}<node>\n{''.join(interface.xml() for interface in interfaces)}{nodes}</node>\n"
