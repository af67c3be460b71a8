"""The Manager: what tools can read and call."""

from __future__ import annotations

from typing import Protocol

from .. import __version__
from ..model import Mode
from .names import MANAGER
from .table import Interface, Property


class Service(Protocol):
    """What the interface needs of the program; every attribute is read when it is asked for."""

    @property
    def mode(self) -> Mode: ...

    @property
    def mode_reason(self) -> str: ...


def manager(service: Service) -> Interface:
    return Interface(
        MANAGER,
        Property(name="Version", signature="s", value=lambda: __version__, emits="const"),
        Property(name="Mode", signature="s", value=lambda: str(service.mode), emits="true"),
        Property(name="ModeReason", signature="s", value=lambda: service.mode_reason, emits="true"),
    )
