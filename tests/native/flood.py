"""What one user's programs can throw at the guard: run as a script of its own, as that user.

`calls ADDRESS CLIENTS SECONDS SEED`: so many connections, each asking one thing after the other.
`noise ADDRESS MESSAGES SEED`: random messages, and bytes that are none. Prints JSON.
`pour ADDRESS CLIENTS SECONDS`: so many connections, each sending calls that want no answer as fast as the
bus takes them; a line when all have begun.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import select
import socket
import string
import sys
import time
from collections import Counter
from typing import Any

from dbus_next import Message, MessageFlag, MessageType, Variant
from dbus_next.aio import MessageBus

NAME, PATH, MANAGER = "org.logindguard1", "/org/logindguard1", "org.logindguard1.Manager"
PROPERTIES = "org.freedesktop.DBus.Properties"
MAX_BYTES = 8 << 10  # what is larger is left unread, and not answered
READING = [
    (MANAGER, "GetStatistics", "", []),
    (MANAGER, "ListResidues", "", []),
    (MANAGER, "ListJobs", "", []),
    (PROPERTIES, "GetAll", "s", [MANAGER]),
    (PROPERTIES, "Get", "ss", [MANAGER, "DyingCount"]),
    ("org.freedesktop.DBus.Introspectable", "Introspect", "", []),
    ("org.freedesktop.DBus.Peer", "Ping", "", []),
    (MANAGER, "Sweep", "a{sv}", [{}]),  # nobody but root may
]
MEMBERS = [
    *(
        "ListResidues",
        "ListReclaims",
        "GetReclaim",
        "GetStatistics",
        "Sweep",
        "ReclaimUnit",
        "ReclaimSession",
    ),
    *("CancelJob", "ListJobs", "Pause", "Resume", "Reload", "Restore", "Introspect", "Get", "GetAll"),
    *("Set", "Ping", "GetMachineId", "Nothing"),
]
SIGNATURES = [
    *(
        "",
        "s",
        "u",
        "t",
        "ttu",
        "sa{sv}",
        "a{sv}",
        "ss",
        "ssv",
        "as",
        "v",
        "a(sst)",
        "ay",
        "d",
        "b",
        "o",
        "g",
    ),
    *("aaaas", "(s(s(s)))", "a{s(bv)}", "x", "n"),
]


async def calls(address: str, clients: int, seconds: float, seed: int) -> dict[str, Any]:
    choose = random.Random(seed)  # a load, no secret
    errors: Counter[str] = Counter()
    times: list[float] = []
    until = time.monotonic() + seconds

    async def client() -> None:
        bus = await MessageBus(bus_address=address).connect()
        while time.monotonic() < until:
            interface, member, signature, body = choose.choice(READING)
            begun = time.monotonic()
            reply = await bus.call(
                Message(
                    destination=NAME,
                    path=PATH,
                    interface=interface,
                    member=member,
                    signature=signature,
                    body=body,
                )
            )
            times.append(time.monotonic() - begun)
            if reply.message_type is MessageType.ERROR:
                errors[f"{member}: {reply.error_name}"] += 1
        bus.disconnect()

    await asyncio.gather(*(client() for _ in range(clients)))
    times.sort()
    return {
        "calls": len(times),
        "errors": errors,
        "median_msec": round(times[len(times) // 2] * 1000, 1),
        "max_msec": round(times[-1] * 1000, 1),
    }


class Noise:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # a load, no secret

    def text(self) -> str:
        return self.random.choice(
            [
                *(
                    "",
                    "user.slice",
                    "ssh.service",
                    "/user.slice",
                    "../../x",
                    "\n<0>x",
                    "é\U0001f4a9",
                    "dry_run",
                ),
                *("path", MANAGER, "Mode", "1", "x" * self.random.choice([1, 300, 70_000])),
                "".join(self.random.choices(string.printable, k=self.random.randrange(40))),
            ]
        )

    def value(self, signature: str) -> tuple[Any, str]:
        """A value for the first complete type, and the rest of the signature."""
        kind, rest = signature[0], signature[1:]
        numbers = {"u": 32, "t": 64, "q": 16, "y": 8}
        if kind in numbers:
            return self.random.choice([0, 1, (1 << numbers[kind]) - 1]), rest
        if kind in "xn":
            return self.random.choice([0, -1, 7]), rest
        if kind == "d":
            return self.random.choice([0.0, -1.5, float("inf")]), rest
        if kind == "b":
            return self.random.random() < 0.5, rest
        if kind == "o":
            return self.random.choice(["/", PATH, "/a/b"]), rest
        if kind == "g":
            return self.random.choice(["", "s", "a{sv}"]), rest
        if kind == "s":
            return self.text(), rest
        if kind == "v":
            inner = self.random.choice([each for each in SIGNATURES if each and _single(each)])
            return Variant(inner, self.value(inner)[0]), rest
        if kind == "a":
            count = self.random.choice([0, 1, 3])
            if rest[0] == "{":
                end = _end(rest)
                inside = rest[1:end]
                pairs = [(self.value(inside[0])[0], self.value(inside[1:])[0]) for _ in range(count)]
                return dict(pairs), rest[end + 1 :]
            element = rest[: _end(rest) + 1]
            if element == "y":
                return self.random.randbytes(count), rest[1:]
            return [self.value(element)[0] for _ in range(count)], rest[len(element) :]
        assert kind == "("
        end = _end(signature)
        inside, items = signature[1:end], []
        while inside:
            item, inside = self.value(inside)
            items.append(item)
        return items, signature[end + 1 :]

    def message(self, owner: str) -> Message:
        signature = self.random.choice(SIGNATURES)
        body, rest = [], signature
        while rest:
            item, rest = self.value(rest)
            body.append(item)
        kind = self.random.choices(
            [MessageType.METHOD_CALL, MessageType.SIGNAL, MessageType.ERROR], [20, 1, 1]
        )[0]
        flags = self.random.choice(
            [MessageFlag.NONE, MessageFlag.NO_REPLY_EXPECTED, MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION]
        )
        call = kind is MessageType.METHOD_CALL
        return Message(
            message_type=kind,
            flags=flags,
            destination=NAME if call and self.random.random() < 0.9 else owner,
            path=self.random.choice([PATH, PATH, PATH, "/", "/org", "/org/logindguard1/x"]),
            interface=self.random.choice([MANAGER, MANAGER, MANAGER, PROPERTIES, "a.b"]),
            member=self.random.choice(MEMBERS),
            error_name="a.b.C" if kind is MessageType.ERROR else None,
            reply_serial=self.random.randrange(1, 5000) if kind is MessageType.ERROR else 0,
            signature=signature,
            body=body,
        )


def _end(signature: str) -> int:
    """Where the first complete type ends."""
    if signature[0] == "a":
        return 1 + _end(signature[1:])
    pairs = {"(": ")", "{": "}"}
    if signature[0] not in pairs:
        return 0
    depth = 0
    for index, letter in enumerate(signature):
        depth += letter in "({"
        depth -= letter in ")}"
        if depth == 0:
            return index
    raise ValueError(signature)


def _single(signature: str) -> bool:
    return _end(signature) == len(signature) - 1


async def noise(address: str, messages: int, seed: int) -> dict[str, Any]:
    made = Noise(seed)
    sent = answered = cut = 0
    while sent < messages:
        bus = await MessageBus(bus_address=address).connect()
        owner = await bus.call(
            Message(
                destination="org.freedesktop.DBus",
                path="/org/freedesktop/DBus",
                interface="org.freedesktop.DBus",
                member="GetNameOwner",
                signature="s",
                body=[NAME],
            )
        )
        for _ in range(min(500, messages - sent)):
            message = made.message(owner.body[0])
            sent += 1
            wanted = message.message_type is MessageType.METHOD_CALL and not (
                message.flags & MessageFlag.NO_REPLY_EXPECTED
            )
            if wanted and len(message._marshall()) <= MAX_BYTES:
                try:
                    await asyncio.wait_for(bus.call(message), 30)
                    answered += 1
                except EOFError:
                    break
            else:
                await bus.send(message)
        bus.disconnect()
        cut += _bytes(address, made, 20)
        sent += 20
    return {"sent": sent, "answered": answered, "cut": cut}


def _bytes(address: str, made: Noise, count: int) -> int:
    """Damaged messages straight to the daemon, a connection each; how many it cut off."""
    cut = 0
    for _ in range(count):
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(re.sub("^unix:path=", "", address))
            raw.settimeout(5)
            raw.sendall(b"\0AUTH EXTERNAL\r\nDATA\r\n")
            raw.recv(4096)
            raw.sendall(b"BEGIN\r\n")
            data = bytearray(made.message(NAME)._marshall())
            for _ in range(made.random.randrange(1, 4)):
                data[made.random.randrange(len(data))] = made.random.randrange(256)
            try:
                raw.sendall(_hello() + data)
                raw.settimeout(0.05)
                while raw.recv(65536):
                    pass
                cut += 1
            except TimeoutError:
                pass
            except OSError:
                cut += 1
    return cut


def _hello() -> bytes:
    message = Message(
        destination="org.freedesktop.DBus",
        path="/org/freedesktop/DBus",
        interface="org.freedesktop.DBus",
        member="Hello",
        serial=1,
    )
    return bytes(message._marshall())


def _greeted(address: str) -> socket.socket:
    """A connection that has said Hello."""
    raw = socket.socket(socket.AF_UNIX)
    raw.connect(re.sub("^unix:path=", "", address))
    raw.sendall(b"\0AUTH EXTERNAL\r\nDATA\r\n")
    raw.recv(4096)
    raw.sendall(b"BEGIN\r\n" + _hello())
    raw.recv(4096)
    raw.setblocking(False)
    return raw


def pour(address: str, clients: int, seconds: float) -> dict[str, Any]:
    call = Message(
        destination=NAME,
        path=PATH,
        interface=MANAGER,
        member="GetStatistics",
        flags=MessageFlag.NO_REPLY_EXPECTED,
        serial=2,
    )
    many = call._marshall() * 200
    poll = select.poll()
    raws = [_greeted(address) for _ in range(clients)]
    by_fd = {raw.fileno(): raw for raw in raws}
    left = dict.fromkeys(by_fd, many)
    for fd in by_fd:
        poll.register(fd, select.POLLIN | select.POLLOUT)
    print("begun", flush=True)
    sent_bytes = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for fd, events in poll.poll(100):
            if events & select.POLLIN:
                by_fd[fd].recv(65536)
            if events & select.POLLOUT:
                sent = by_fd[fd].send(left[fd])
                left[fd] = left[fd][sent:] or many
                sent_bytes += sent
    return {"sent": sent_bytes * 200 // len(many)}


if __name__ == "__main__":
    what, address, *numbers = sys.argv[1:]
    answer: dict[str, Any]
    if what == "pour":
        answer = pour(address, int(numbers[0]), float(numbers[1]))
    elif what == "calls":
        answer = asyncio.run(calls(address, int(numbers[0]), float(numbers[1]), int(numbers[2])))
    else:
        answer = asyncio.run(noise(address, int(numbers[0]), int(numbers[1])))
    print(json.dumps(answer))
