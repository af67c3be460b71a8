"""The names that tools may rely on."""

from __future__ import annotations

from enum import StrEnum

BUS_NAME = "org.logindguard1"
PATH = "/org/logindguard1"
MANAGER = "org.logindguard1.Manager"


class Error(StrEnum):
    """Names of the errors that a call can end with; those of D-Bus itself keep their own names."""

    FAILED = "org.logindguard1.Error.Failed"  # an internal error; the journal has the details
    BUSY = "org.logindguard1.Error.Busy"  # the kernel is at work on another cgroup just now

    ACCESS_DENIED = "org.freedesktop.DBus.Error.AccessDenied"
    INVALID_ARGS = "org.freedesktop.DBus.Error.InvalidArgs"
    LIMITS_EXCEEDED = "org.freedesktop.DBus.Error.LimitsExceeded"
    PROPERTY_READ_ONLY = "org.freedesktop.DBus.Error.PropertyReadOnly"
    UNKNOWN_INTERFACE = "org.freedesktop.DBus.Error.UnknownInterface"
    UNKNOWN_METHOD = "org.freedesktop.DBus.Error.UnknownMethod"
    UNKNOWN_OBJECT = "org.freedesktop.DBus.Error.UnknownObject"
    UNKNOWN_PROPERTY = "org.freedesktop.DBus.Error.UnknownProperty"


class CallError(Exception):
    """Ends a call with a D-Bus error; the sentence is for people and goes to the caller as it is."""

    def __init__(self, name: Error, sentence: str) -> None:
        super().__init__(sentence)
        self.name = name
        self.sentence = sentence
