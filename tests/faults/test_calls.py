"""Calls on the bus of any member, signature and content: an answer or a documented error, and it lives on."""

from __future__ import annotations

import logging
import random
import re
from typing import Any

import pytest
from dbus_next import Variant

from logindguard.dbus.names import MANAGER, Error
from tests.bus.conftest import bus, daemon, short_dir
from tests.bus.rig import Rig
from tests.bus.test_manager import rig, root
from tests.faults.conftest import Scale
from tests.native.launcher import CHECKOUT

from ..bus.test_dbus_server import Client

__all__ = ["bus", "daemon", "rig", "root", "short_dir"]  # fixtures

STANDARD = "org.freedesktop.DBus.Properties"
INTERFACES = (MANAGER, MANAGER, MANAGER, STANDARD, "org.freedesktop.DBus.Introspectable", "a.b", None)
XML = (CHECKOUT / "dbus/org.logindguard1.Manager.xml").read_text()
MEMBERS = (*re.findall(r'<(?:method|property|signal) name="(\w+)"', XML), "Get", "Set", "GetAll", "Nonsense")
# A call of more than 8 KiB is none of ours, and left unanswered: tests/bus/test_reader.py.
TEXTS = (
    *("", "/", "/system.slice", "ssh.service", "session-1.scope", "1", "../../etc", "/a/../b", "a" * 300),
    *("x\n<0>y", "%s%n", "\u202e", "\U0001f600", MANAGER, "Mode", "DyingCount", "f" * 32),
)
BASIC = "ybnqiuxtdso"
RANGES = {"y": 8, "q": 16, "u": 32, "t": 64, "n": -16, "i": -32, "x": -64}


def value_of(code: str, chance: random.Random) -> Any:
    if code in RANGES:
        bits = RANGES[code]
        low, high = (0, (1 << bits) - 1) if bits > 0 else (-(1 << -bits - 1), (1 << -bits - 1) - 1)
        return chance.choice((low, high, 0, 1, 5, chance.randint(low, high)))
    match code:
        case "b":
            return chance.random() < 0.5
        case "d":
            return chance.choice((0.0, -1.5, 1e308, float("inf"), float("nan")))
        case "o":
            return chance.choice(("/", "/org/logindguard1", "/a_b/c"))
        case "as":
            return [chance.choice(TEXTS) for _ in range(chance.randrange(4))]
        case "a{sv}":
            keys = ("dry_run", "path", "unit", "limit", "since_usec", chance.choice(TEXTS))
            return {
                key: Variant(kind := chance.choice(BASIC), value_of(kind, chance))
                for key in chance.sample(keys, chance.randrange(4))
            }
        case "v":
            kind = chance.choice(BASIC)
            return Variant(kind, value_of(kind, chance))
    return chance.choice(TEXTS)


@pytest.mark.timeout(900)
async def test_calls_of_any_content(
    root: Client, rig: Rig, chance: random.Random, scale: Scale, caplog: pytest.LogCaptureFixture
) -> None:
    known = {error.value for error in Error}
    answered = refused = 0
    for _ in range(scale(400, 10_000)):
        codes = [
            chance.choice((*BASIC, "as", "a{sv}", "v", "s", "t", "u")) for _ in range(chance.randrange(5))
        ]
        call = (
            chance.choice(MEMBERS),
            "".join(codes),
            *(value_of(code, chance) for code in codes),
        )
        to: dict[str, Any] = {
            "interface": chance.choice(INTERFACES),
            "path": chance.choice(("/org/logindguard1", "/org/logindguard1", "/", "/org/logindguard1/a")),
        }
        print(to, call)  # the last one is shown where it fails
        reply = await root.call(*call, **to)
        if reply.error_name:
            refused += 1
            assert reply.error_name in known, (reply.error_name, reply.body)
            assert "Traceback" not in reply.body[0]
            assert reply.error_name != Error.FAILED, reply.body
        else:
            answered += 1
    assert answered
    assert refused
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert await root.answer_to("GetAll", "s", MANAGER, interface=STANDARD)
