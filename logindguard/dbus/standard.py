"""The interfaces that the D-Bus specification gives every object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dbus_next import Variant

from .names import PATH, CallError, Error
from .table import Interface, Method, Property, Signal, node_xml

MACHINE_ID = Path("/etc/machine-id")


def standard(interface: Interface) -> list[Interface]:
    """Peer, Introspectable and Properties for an object at PATH that has `interface`."""
    peer = Interface(
        "org.freedesktop.DBus.Peer",
        Method(name="Ping", answer=lambda path: []),
        Method(name="GetMachineId", gives="machine_uuid:s", answer=_machine_id),
    )
    introspectable = Interface(
        "org.freedesktop.DBus.Introspectable",
        Method(name="Introspect", gives="xml_data:s", answer=lambda path: [_introspect(path, served)]),
    )
    values = _Properties(interface)
    properties = Interface(
        "org.freedesktop.DBus.Properties",
        Method(name="Get", takes="interface_name:s property_name:s", gives="value:v", answer=values.get),
        Method(name="GetAll", takes="interface_name:s", gives="props:a{sv}", answer=values.get_all),
        Method(name="Set", takes="interface_name:s property_name:s value:v", answer=values.set),
        Signal(
            name="PropertiesChanged",
            gives="interface_name:s changed_properties:a{sv} invalidated_properties:as",
        ),
    )
    served = [peer, introspectable, properties, interface]
    return [peer, introspectable, properties]


def _machine_id(_path: str) -> list[Any]:
    try:
        return [MACHINE_ID.read_text().strip()]
    except OSError as error:
        raise CallError(Error.FAILED, f"{MACHINE_ID} cannot be read: {error.strerror}.") from error


def _introspect(path: str, served: list[Interface]) -> str:
    if path == PATH:
        return node_xml(served, [])
    above = path.rstrip("/") + "/"
    if PATH.startswith(above):  # so that `busctl tree` finds the object
        return node_xml([], [PATH.removeprefix(above).partition("/")[0]])
    raise CallError(Error.UNKNOWN_OBJECT, f"There is no such object: {path}.")


class _Properties:
    def __init__(self, interface: Interface) -> None:
        self._interface = interface

    def get(self, path: str, interface: str, name: str) -> list[Any]:
        return [_variant(self._of(path, interface, name))]

    def get_all(self, path: str, interface: str) -> list[Any]:
        self._check(path, interface)
        if interface and interface != self._interface.name:  # a standard one: none of them has any
            return [{}]
        return [{item.name: _variant(item) for item in self._interface.properties.values()}]

    def set(self, path: str, interface: str, name: str, _value: object) -> list[Any]:
        self._of(path, interface, name)
        raise CallError(Error.PROPERTY_READ_ONLY, f"The property {name} can only be read.")

    def _of(self, path: str, interface: str, name: str) -> Property:
        self._check(path, interface)
        item = self._interface.properties.get(name)
        if item is None or interface not in ("", self._interface.name):
            raise CallError(Error.UNKNOWN_PROPERTY, f"There is no property {name}.")
        return item

    def _check(self, path: str, interface: str) -> None:
        if path != PATH:
            raise CallError(Error.UNKNOWN_OBJECT, f"There is no such object: {path}.")
        if interface not in ("", self._interface.name) and not interface.startswith("org.freedesktop.DBus."):
            raise CallError(Error.UNKNOWN_INTERFACE, f"There is no interface {interface} at {path}.")


def _variant(item: Property) -> Variant:
    return Variant(item.signature, item.value())
