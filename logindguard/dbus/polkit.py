"""Whether a caller may: polkit is asked, with a deadline, and no answer is a no.

Hard facts (polkit 122, org.freedesktop.PolicyKit1.Authority):

- CheckAuthorization((sa{sv})sa{ss}us) answers (bba{ss}): is_authorized, is_challenge, details.
  With flag 1 it asks a person first, and answers when that one is done, minutes later.
- A subject "system-bus-name" is resolved by polkit itself: no race between a pid and its reuse.
- CancelCheckAuthorization(s) ends a question by the id that it was asked with. A client that
  just stops waiting leaves the dialog on the person's screen.
- An action that is not installed is an error, not a no. So is any action, by any but root,
  where polkit is not there.
- uid 0 passes without polkit: it can stop the service anyway, and must be able to without polkit.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from enum import StrEnum

from dbus_next import Variant

from ..signals.bus import BusError, SystemBus
from .callers import Caller
from .names import CallError, Error

DEADLINE_SEC = 10.0
INTERACTIVE_DEADLINE_SEC = 120.0  # for a person to type a password
MAX_PENDING = 64
MAX_PENDING_OF_USER = 8

_NAME = "org.freedesktop.PolicyKit1"
_PATH = "/org/freedesktop/PolicyKit1/Authority"
_AUTHORITY = "org.freedesktop.PolicyKit1.Authority"
_ALLOW_USER_INTERACTION = 1

log = logging.getLogger(__name__)


class Action(StrEnum):
    """What an administrator grants; described in polkit/org.logindguard1.policy."""

    RECLAIM = "org.logindguard1.reclaim"
    SWEEP = "org.logindguard1.sweep"
    RELOAD = "org.logindguard1.reload"
    READ_DETAILS = "org.logindguard1.read-details"


class Polkit:
    def __init__(
        self,
        bus: SystemBus,
        *,
        deadline_sec: float = DEADLINE_SEC,
        interactive_deadline_sec: float = INTERACTIVE_DEADLINE_SEC,
    ) -> None:
        self._bus = bus
        self._deadline_sec = deadline_sec
        self._interactive_deadline_sec = interactive_deadline_sec
        self._ids = itertools.count(1)
        self._pending: Counter[int] = Counter()  # by uid
        self._cancelling: set[asyncio.Task[None]] = set()
        self._warned = False

    async def require(self, caller: Caller, action: Action) -> None:
        """Returns when the caller may; CallError with a sentence that says why not."""
        if caller.is_root:
            return
        authorized, challenge = await self._ask(caller, action)
        if authorized:
            return
        if challenge and not caller.interactive:
            raise CallError(
                Error.INTERACTIVE_AUTHORIZATION_REQUIRED,
                f"{action} needs an administrator's password: allow interactive authorization.",
            )
        raise CallError(Error.ACCESS_DENIED, f"You are not authorized for {action}.")

    async def allows(self, caller: Caller, action: Action) -> bool:
        """The same as an answer; no where polkit cannot be asked."""
        try:
            await self.require(caller, action)
        except CallError:
            return False
        return True

    async def _ask(self, caller: Caller, action: Action) -> tuple[bool, bool]:
        if self._pending[caller.uid] >= MAX_PENDING_OF_USER or self._pending.total() >= MAX_PENDING:
            raise CallError(Error.LIMITS_EXCEEDED, "Too many authorizations are pending: try again later.")
        self._pending[caller.uid] += 1
        try:
            return await self._check(caller, action)
        finally:
            self._pending[caller.uid] -= 1
            if not self._pending[caller.uid]:
                del self._pending[caller.uid]

    async def _check(self, caller: Caller, action: Action) -> tuple[bool, bool]:
        cancellation_id = f"{self._bus.unique_name}-{next(self._ids)}"
        subject = ["system-bus-name", {"name": Variant("s", caller.unique_name)}]
        flags = _ALLOW_USER_INTERACTION if caller.interactive else 0
        try:
            [[authorized, challenge, _details]] = await self._bus.call(
                _NAME,
                _PATH,
                _AUTHORITY,
                "CheckAuthorization",
                "(sa{sv})sa{ss}us",
                [subject, str(action), {}, flags, cancellation_id],
                timeout_sec=self._interactive_deadline_sec if caller.interactive else self._deadline_sec,
            )
        except asyncio.CancelledError:  # the caller left the bus
            self._cancel(cancellation_id)
            raise
        except BusError as error:
            self._cancel(cancellation_id)
            self._warn(f"polkit did not answer for {action}: {error}.")
            raise CallError(
                Error.ACCESS_DENIED, f"polkit cannot be asked for {action}: only root may now."
            ) from error
        except (TypeError, ValueError) as error:
            self._warn("polkit answered in a form that is not understood.")
            raise CallError(Error.ACCESS_DENIED, f"polkit cannot be asked for {action}.") from error
        self._warned = False
        return authorized is True, challenge is True

    def _warn(self, sentence: str) -> None:
        """Once until it answers: anybody can ask often, and journald drops lines of who logs too much."""
        log.log(logging.DEBUG if self._warned else logging.WARNING, "%s", sentence)
        self._warned = True

    def _cancel(self, cancellation_id: str) -> None:
        """In the background: whoever asked does not wait for it, and it may fail."""
        task = asyncio.create_task(self._send_cancel(cancellation_id), name="cancel authorization")
        self._cancelling.add(task)
        task.add_done_callback(self._cancelling.discard)

    async def _send_cancel(self, cancellation_id: str) -> None:
        try:
            await self._bus.call(
                _NAME,
                _PATH,
                _AUTHORITY,
                "CancelCheckAuthorization",
                "s",
                [cancellation_id],
                timeout_sec=self._deadline_sec,
            )
        except BusError as error:
            log.debug("polkit: %s", error)

    def stop(self) -> None:
        for task in self._cancelling:
            task.cancel()
