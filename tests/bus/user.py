"""An ordinary user's program on the bus: a process of its own, since the bus asks the socket who it is."""

from __future__ import annotations

import asyncio
import json
import subprocess
from typing import Any, Self

from logindguard.dbus.names import MANAGER

# On its own: another user need not be able to read the checkout.
_PROGRAM = """
import asyncio, json, sys
from dbus_next import Message, MessageFlag, MessageType, Variant
from dbus_next.aio import MessageBus

def packed(value):
    if isinstance(value, dict):
        if "variant" in value:
            return Variant(value["variant"][0], packed(value["variant"][1]))
        return {key: packed(item) for key, item in value.items()}
    return [packed(item) for item in value] if isinstance(value, list) else value

def plain(value):
    if isinstance(value, Variant):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value

async def main():
    bus = await MessageBus(bus_address=sys.argv[1]).connect()
    print(json.dumps(bus.unique_name), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        call = json.loads(line)
        if kind := call.pop("send", None):
            await bus.send(Message(message_type=MessageType[kind], **call))
            print(json.dumps(["", []]), flush=True)
            continue
        flags = MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION if call.pop("interactive") else MessageFlag.NONE
        call["body"] = packed(call["body"])
        reply = await bus.call(Message(flags=flags, **call))
        name = reply.error_name if reply.message_type is MessageType.ERROR else ""
        print(json.dumps([name, plain(reply.body)]), flush=True)

asyncio.run(main())
"""


class Failed(Exception):
    """The error that a call ended with, without its domain, and its sentence."""

    def __init__(self, name: str, sentence: str) -> None:
        super().__init__(f"{name}: {sentence}")
        self.name = name.rpartition(".")[2]
        self.domain = name.rpartition(".")[0]
        self.sentence = sentence
        assert "Traceback" not in sentence


class User:
    def __init__(self, process: asyncio.subprocess.Process, unique_name: str) -> None:
        self._process = process
        self.unique_name = unique_name

    @classmethod
    async def start(cls, address: str, uid: int) -> Self:
        process = await asyncio.create_subprocess_exec(
            *("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"),
            *("/usr/bin/python3", "-W", "ignore", "-c", _PROGRAM, address),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            limit=64 << 20,
        )
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        return cls(process, json.loads(line))

    async def call(
        self,
        member: str,
        signature: str = "",
        *body: Any,
        interactive: bool = False,
        to: str = "org.logindguard1",
        path: str = "/org/logindguard1",
        interface: str = MANAGER,
    ) -> Any:
        """The reply's only value, or the list of them; raises Failed. `option` makes a variant."""
        message = {
            "destination": to,
            "path": path,
            "interface": interface,
            "member": member,
            "signature": signature,
            "body": list(body),
            "interactive": interactive,
        }
        error, values = await self._order(message)
        if error:
            raise Failed(error, values[0])
        return values[0] if len(values) == 1 else values

    async def send(self, kind: str, to: str | None, **more: Any) -> None:
        """Sends a message that nobody answers; `kind` is a MessageType."""
        message = {
            "send": kind,
            "destination": to,
            "path": "/",
            "interface": "org.example.I",
            "member": "Sent",
        }
        await self._order(message | more)

    async def _order(self, message: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        return json.loads(await asyncio.wait_for(self._process.stdout.readline(), 60))

    async def get(self, name: str) -> Any:
        return await self.call("Get", "ss", MANAGER, name, interface="org.freedesktop.DBus.Properties")

    async def stop(self) -> None:
        """Leaves the bus, whatever it waits for."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        transport = getattr(self._process, "_transport", None)  # 3.11 closes it late, which warns
        if transport is not None:
            transport.close()


def option(signature: str, value: Any) -> dict[str, list[Any]]:
    return {"variant": [signature, value]}
