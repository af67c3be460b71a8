"""The names that tools may rely on."""

from __future__ import annotations

from enum import StrEnum

BUS_NAME = "org.logindguard1"
PATH = "/org/logindguard1"
MANAGER = "org.logindguard1.Manager"
HOOK = "org.logindguard1.Hook"  # bus name that only root may call, and the interface for the hook


class Error(StrEnum):
    """Names of the errors that a call can end with; those of D-Bus itself keep their own names."""

    FAILED = "org.logindguard1.Error.Failed"  # an internal error; the journal has the details
    BUSY = "org.logindguard1.Error.Busy"  # the kernel is at work on another cgroup just now
    HISTORY_UNAVAILABLE = "org.logindguard1.Error.HistoryUnavailable"  # the journal cannot be read
    INVALID_CONFIG = "org.logindguard1.Error.InvalidConfig"  # the old settings stay in force
    NO_SUCH_JOB = "org.logindguard1.Error.NoSuchJob"
    NO_SUCH_RECLAIM = "org.logindguard1.Error.NoSuchReclaim"
    NO_SUCH_SESSION = "org.logindguard1.Error.NoSuchSession"
    NO_SUCH_UNIT = "org.logindguard1.Error.NoSuchUnit"
    NOT_SUPPORTED = "org.logindguard1.Error.NotSupported"  # in this mode; the sentence has its reason
    PAUSED = "org.logindguard1.Error.Paused"
    RESTORE_FAILED = "org.logindguard1.Error.RestoreFailed"
    NOT_ENDING = "org.logindguard1.Hook.Error.NotEnding"  # others are in the caller's cgroup, or it is gone
    NOT_COVERED = "org.logindguard1.Hook.Error.NotCovered"  # the settings leave the caller's unit alone

    ACCESS_DENIED = "org.freedesktop.DBus.Error.AccessDenied"
    INTERACTIVE_AUTHORIZATION_REQUIRED = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"
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
