"""polkit as the guard asks it: allowing, denying, hanging, absent, and asked for by too many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

import pytest

from logindguard.dbus import polkit as polkit_module
from logindguard.dbus.callers import Caller
from logindguard.dbus.names import CallError, Error
from logindguard.dbus.polkit import Action, Polkit
from logindguard.signals.bus import SystemBus

from .conftest import Daemon
from .fakes import Peer, until

POLICY = Path(__file__).parents[2] / "polkit" / "org.logindguard1.policy"
ALICE = Caller(unique_name=":1.4711", uid=1000, pid=1)
ROOT = Caller(unique_name=":1.1", uid=0, pid=1)


class FakePolkit(Peer):
    """Says what it is told to; the real one is asked in a virtual machine."""

    NAME: ClassVar[str] = "org.freedesktop.PolicyKit1"

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self.verdict: list[Any] = [True, False, {}]
        self.asked: list[list[Any]] = []
        self.canceled: list[str] = []

    def answer(self, message: Any) -> tuple[str, list[Any]] | None:
        if message.member == "CheckAuthorization":
            self.asked.append(message.body)
            return "(bba{ss})", [self.verdict]
        if message.member == "CancelCheckAuthorization":
            self.canceled += message.body
            return "", []
        return None


@pytest.fixture
async def authority(daemon: Daemon) -> AsyncIterator[FakePolkit]:
    peer = await FakePolkit.connect(daemon.address)
    yield peer
    peer.close()


@pytest.fixture
async def polkit(bus: SystemBus) -> AsyncIterator[Polkit]:
    polkit = Polkit(bus, deadline_sec=60)
    yield polkit
    polkit.stop()
    await until(lambda: not polkit._cancelling)


async def refused(polkit: Polkit, caller: Caller = ALICE) -> Error:
    with pytest.raises(CallError) as caught:
        await polkit.require(caller, Action.SWEEP)
    assert caught.value.sentence.endswith(".")
    return caught.value.name


async def test_it_is_asked_about_the_caller_and_the_action(polkit: Polkit, authority: FakePolkit) -> None:
    await polkit.require(ALICE, Action.SWEEP)
    [[subject, action, details, flags, _]] = authority.asked
    assert subject[0] == "system-bus-name"
    assert subject[1]["name"].value == ALICE.unique_name
    assert (action, details, flags) == ("org.logindguard1.sweep", {}, 0)


async def test_a_no_and_a_password_that_was_not_asked_for(polkit: Polkit, authority: FakePolkit) -> None:
    authority.verdict = [False, False, {}]
    assert await refused(polkit) is Error.ACCESS_DENIED
    authority.verdict = [False, True, {}]
    assert await refused(polkit) is Error.INTERACTIVE_AUTHORIZATION_REQUIRED
    asking = Caller(unique_name=":1.4711", uid=1000, pid=1, interactive=True)
    assert await refused(polkit, asking) is Error.ACCESS_DENIED  # the person did not give it
    assert authority.asked[-1][3] == 1
    assert not await polkit.allows(ALICE, Action.SWEEP)


async def test_root_needs_no_polkit(polkit: Polkit) -> None:
    await polkit.require(ROOT, Action.RELOAD)


async def test_without_polkit_nobody_else_may(polkit: Polkit) -> None:
    assert await refused(polkit) is Error.ACCESS_DENIED


async def test_users_cannot_fill_the_journal_where_it_is_absent(
    polkit: Polkit, daemon: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        assert not await polkit.allows(ALICE, Action.READ_DETAILS)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    authority = await FakePolkit.connect(daemon.address)
    await polkit.require(ALICE, Action.SWEEP)
    authority.close()
    await until(lambda: not polkit._cancelling)
    assert not await polkit.allows(ALICE, Action.READ_DETAILS)
    assert len(caplog.records) == 2


async def test_one_that_hangs_is_a_no_and_is_told_to_forget_it(polkit: Polkit, authority: FakePolkit) -> None:
    authority.silent.add("CheckAuthorization")
    polkit._deadline_sec = 0.3
    assert await refused(polkit) is Error.ACCESS_DENIED
    await until(lambda: len(authority.canceled) == 1)


async def test_an_error_is_a_no(polkit: Polkit, authority: FakePolkit) -> None:
    authority.errors["CheckAuthorization"] = "org.freedesktop.PolicyKit1.Error.Failed"
    assert await refused(polkit) is Error.ACCESS_DENIED


@pytest.mark.parametrize("verdict", [("s", ["yes"]), ("(ss)", [["a", "b"]]), ("", [])])
async def test_an_answer_that_is_none_is_a_no(
    polkit: Polkit, authority: FakePolkit, monkeypatch: pytest.MonkeyPatch, verdict: tuple[str, list[Any]]
) -> None:
    monkeypatch.setattr(authority, "answer", lambda message: verdict)
    assert await refused(polkit) is Error.ACCESS_DENIED


async def test_a_caller_that_leaves_takes_its_dialog_along(bus: SystemBus, authority: FakePolkit) -> None:
    polkit = Polkit(bus, interactive_deadline_sec=30)
    authority.silent.add("CheckAuthorization")
    caller = Caller(unique_name=":1.4711", uid=1000, pid=1, interactive=True)
    question = asyncio.create_task(polkit.require(caller, Action.SWEEP))
    await until(lambda: authority.calls == ["CheckAuthorization"])
    question.cancel()
    with pytest.raises(asyncio.CancelledError):
        await question
    await until(lambda: len(authority.canceled) == 1)
    await until(lambda: not polkit._cancelling)
    assert not polkit._pending


async def test_one_user_cannot_have_too_many_questions_pending(bus: SystemBus, authority: FakePolkit) -> None:
    polkit = Polkit(bus, deadline_sec=30)
    authority.silent.add("CheckAuthorization")
    most = polkit_module.MAX_PENDING_OF_USER
    questions = [asyncio.create_task(polkit.require(ALICE, Action.SWEEP)) for _ in range(most)]
    await until(lambda: len(authority.calls) == most)
    assert await refused(polkit) is Error.LIMITS_EXCEEDED
    for question in questions:
        question.cancel()
    await asyncio.gather(*questions, return_exceptions=True)
    authority.silent.clear()
    await polkit.require(ALICE, Action.SWEEP)
    await until(lambda: not polkit._cancelling)


def test_the_policy_describes_every_action() -> None:
    actions = ElementTree.parse(POLICY).getroot().findall("action")
    assert {action.get("id") for action in actions} == {str(action) for action in Action}
    for action in actions:
        for name in ("description", "message"):
            [text] = action.findall(name)
            assert text.get("gettext-domain") == "logindguard"
            assert text.text
        assert {each.tag: each.text for each in action.findall("defaults/*")} == {
            "allow_any": "auth_admin",
            "allow_inactive": "auth_admin",
            "allow_active": "auth_admin_keep",
        }
