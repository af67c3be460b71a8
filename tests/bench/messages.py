#!/usr/bin/python3
"""Hears and sends what the guard does for each teardown, and does nothing else: what that costs.

    python3 -m tests.bench.messages ADDRESS

By dbus-next alone, as its own documentation has it. Owns the guard's name on the bus; runs until it is
told to end.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from dbus_next import Message, MessageType, Variant
from dbus_next.aio import MessageBus

LOGIN1, SYSTEMD1 = "org.freedesktop.login1", "org.freedesktop.systemd1"
HEARD = {
    LOGIN1: ("SessionNew", "SessionRemoved"),
    SYSTEMD1: ("JobNew", "JobRemoved", "UnitRemoved"),
}
PROPERTIES = "org.freedesktop.DBus.Properties"
# As many and as long as those of a record.
RECORD = {
    **{f"a_number_{n}": Variant("t", 1 << 20) for n in range(8)},
    **{f"a_text_{n}": Variant("s", "/user.slice/user-1000.slice") for n in range(6)},
}


class Listener:
    def __init__(self, bus: Any) -> None:
        self._bus = bus
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        for sender, members in HEARD.items():
            for member in members:
                rule = f"type='signal',sender='{sender}',interface='{sender}.Manager',member='{member}'"
                await self._call("org.freedesktop.DBus", "/org/freedesktop/DBus", "AddMatch", "s", [rule])
        self._bus.add_message_handler(self._heard)
        await self._bus.request_name("org.logindguard1")

    async def _call(self, to: str, path: str, member: str, form: str, body: list[str]) -> None:
        interface = to if member == "AddMatch" else PROPERTIES
        message = Message(
            destination=to, path=path, interface=interface, member=member, signature=form, body=body
        )
        await self._bus.call(message)

    def _heard(self, message: Any) -> None:
        if message.message_type is not MessageType.SIGNAL:
            return
        if message.member == "SessionNew":
            self._ask(LOGIN1, message.body[1], "GetAll", "s", [f"{LOGIN1}.Session"])
        elif message.member == "JobNew":
            self._ask(SYSTEMD1, message.body[1], "Get", "ss", [f"{SYSTEMD1}.Job", "JobType"])
        elif message.member == "SessionRemoved":
            path, name = "/org/logindguard1", "org.logindguard1.Manager"
            self._bus.send(Message.new_signal(path, name, "Reclaimed", "a{sv}", [RECORD]))

    def _ask(self, to: str, path: str, member: str, form: str, body: list[str]) -> None:
        task = asyncio.create_task(self._call(to, path, member, form, body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def main(address: str) -> None:
    bus = await MessageBus(bus_address=address).connect()
    await Listener(bus).start()
    await bus.wait_for_disconnect()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
