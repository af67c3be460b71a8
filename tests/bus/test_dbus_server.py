"""Our interface as its callers see it, on a real dbus-daemon."""

from __future__ import annotations

import asyncio
import logging
import subprocess
from collections.abc import AsyncIterator
from typing import Any
from xml.etree import ElementTree

import pytest
from dbus_next import Message, MessageFlag, MessageType, Variant

from logindguard.dbus import callers, server
from logindguard.dbus.callers import Caller
from logindguard.dbus.names import BUS_NAME, MANAGER, PATH, CallError, Error
from logindguard.dbus.server import Server
from logindguard.dbus.table import Interface, Method, Property, Signal
from logindguard.signals.bus import SystemBus

from .conftest import Daemon
from .fakes import Peer, until

DBUS_ERROR = "org.freedesktop.DBus.Error."
PROPERTIES = "org.freedesktop.DBus.Properties"
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"


class Service:
    """What the tests call."""

    def __init__(self) -> None:
        self.callers: list[Caller] = []
        self.waiting = 0
        self.cancelled = 0
        self.go = asyncio.Event()
        self.level: int | str = 1

    def interface(self) -> Interface:
        return Interface(
            MANAGER,
            Method(name="Double", takes="text:s options:a{sv}", gives="text:s", handler=self.double),
            Method(name="Wait", handler=self.wait),
            Method(name="Break", handler=self.broken),
            Method(name="Mistype", gives="number:u", handler=self.mistype),
            Method(name="Refuse", handler=self.refuse),
            Property(name="Level", signature="u", value=lambda: self.level, emits="true"),
            Signal(name="Happened", gives="what:s count:u"),
        )

    async def double(self, caller: Caller, text: str, options: dict[str, Any]) -> list[Any]:
        self.callers.append(caller)
        return [text * options.get("times", 2)]

    async def wait(self, caller: Caller) -> list[Any]:
        self.callers.append(caller)
        self.waiting += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1
        return []

    async def broken(self, _caller: Caller) -> list[Any]:
        raise ZeroDivisionError("a secret")

    async def mistype(self, _caller: Caller) -> list[Any]:
        return ["no number"]

    async def refuse(self, _caller: Caller) -> list[Any]:
        raise CallError(Error.BUSY, "Come back later.")


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
async def served(bus: SystemBus, service: Service) -> AsyncIterator[Server]:
    served = Server(bus, service.interface())
    await served.start()
    yield served
    served.stop()
    await until(lambda: not served._tasks and not served._callers._forgetting)


class Client(Peer):
    """A tool on the bus, and what signals it got."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self.heard: list[tuple[str, list[Any]]] = []
        connection.add_message_handler(self._note)

    def _note(self, message: Any) -> None:
        if message.message_type is MessageType.SIGNAL:
            self.heard.append((message.member, message.body))

    async def call(
        self,
        member: str,
        signature: str = "",
        *body: Any,
        interface: str | None = MANAGER,
        path: str = PATH,
        flags: MessageFlag = MessageFlag.NONE,
        to: str = BUS_NAME,
    ) -> Any:
        message = Message(
            destination=to,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=list(body),
            flags=flags,
        )
        return await asyncio.wait_for(self._connection.call(message), 60)

    async def answer_to(self, member: str, signature: str = "", *body: Any, **more: Any) -> list[Any]:
        reply = await self.call(member, signature, *body, **more)
        assert reply.message_type is MessageType.METHOD_RETURN, (reply.error_name, reply.body)
        return list(reply.body)

    async def error_of(self, member: str, signature: str = "", *body: Any, **more: Any) -> tuple[str, str]:
        reply = await self.call(member, signature, *body, **more)
        assert reply.message_type is MessageType.ERROR, reply.body
        [sentence] = reply.body
        assert "Traceback" not in sentence
        return reply.error_name, sentence


@pytest.fixture
async def client(daemon: Daemon, served: Server) -> AsyncIterator[Client]:
    client = await Client.connect(daemon.address)
    yield client
    client.close()


async def test_a_method_knows_who_calls(client: Client, service: Service) -> None:
    assert await client.answer_to("Double", "sa{sv}", "ab", {}) == ["abab"]
    assert await client.answer_to("Double", "sa{sv}", "a", {"times": Variant("u", 5)}) == ["aaaaa"]
    [first, second] = service.callers
    assert (first.unique_name, first.uid, first.is_root) == (client.unique_name, 0, True)
    assert first == second
    assert not first.interactive
    await client.call(
        "Wait", flags=MessageFlag.NO_REPLY_EXPECTED | MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION
    )
    await until(lambda: len(service.callers) == 3)
    assert service.callers[2].interactive


async def test_an_ordinary_user(daemon: Daemon, served: Server, service: Service) -> None:
    done = await _busctl(daemon, "call", BUS_NAME, PATH, MANAGER, "Double", "sa{sv}", "ab", "0")
    assert done == (0, 's "abab"\n', "")
    assert service.callers[0].uid == 65534


async def _busctl(daemon: Daemon, *arguments: str, uid: int = 65534) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *("setpriv", f"--reuid={uid}", "--regid=65534", "--clear-groups"),
        *("busctl", f"--address={daemon.address}", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (("Nothing",), "UnknownMethod"),
        (("Double",), "InvalidArgs"),
        (("Double", "s", "ab"), "InvalidArgs"),
        (("Double", "sas", "ab", ["c"]), "InvalidArgs"),
        (("Wait", "s", "ab"), "InvalidArgs"),
    ],
)
async def test_a_call_that_does_not_fit(client: Client, call: tuple[Any, ...], name: str) -> None:
    assert (await client.error_of(*call))[0] == DBUS_ERROR + name


async def test_objects_and_interfaces_that_are_not_there(client: Client) -> None:
    for path in ("/", "/org", "/org/logindguard1/x"):
        assert (await client.error_of("Wait", path=path))[0] == DBUS_ERROR + "UnknownObject"
        assert (await client.error_of("Wait", path=path, interface=None))[0] == DBUS_ERROR + "UnknownMethod"
        assert (await client.error_of("GetAll", "s", MANAGER, path=path, interface=PROPERTIES))[
            0
        ] == DBUS_ERROR + "UnknownObject"
    assert (await client.error_of("Wait", interface="org.example.I"))[0] == DBUS_ERROR + "UnknownInterface"
    managed = "org.freedesktop.DBus.ObjectManager"  # dbus-next would answer it by itself
    assert (await client.error_of("GetManagedObjects", interface=managed))[
        0
    ] == DBUS_ERROR + "UnknownInterface"


async def test_the_interface_may_be_left_out(client: Client) -> None:
    assert await client.answer_to("Double", "sa{sv}", "ab", {}, interface=None) == ["abab"]
    assert await client.answer_to("Ping", interface=None, path="/anywhere") == []


async def test_errors_are_told_without_details(
    client: Client, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    assert await client.error_of("Refuse") == ("org.logindguard1.Error.Busy", "Come back later.")
    caplog.clear()
    for member in ("Break", "Mistype"):
        name, sentence = await client.error_of(member)
        assert name == "org.logindguard1.Error.Failed"
        assert "secret" not in sentence
    service.level = "no number"
    name, _ = await client.error_of("Get", "ss", MANAGER, "Level", interface=PROPERTIES)
    assert name == "org.logindguard1.Error.Failed"
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 3
    assert "a secret" in caplog.text


async def test_properties(client: Client, served: Server, service: Service) -> None:
    [value] = await client.answer_to("Get", "ss", MANAGER, "Level", interface=PROPERTIES)
    assert (value.signature, value.value) == ("u", 1)
    service.level = 2
    [value] = await client.answer_to("Get", "ss", "", "Level", interface=PROPERTIES)
    assert value.value == 2
    set_it = ("Set", "ssv", MANAGER, "Level", Variant("u", 3))
    assert (await client.error_of(*set_it, interface=PROPERTIES))[0] == DBUS_ERROR + "PropertyReadOnly"
    missing = ("Get", "ss", MANAGER, "Missing")
    assert (await client.error_of(*missing, interface=PROPERTIES))[0] == DBUS_ERROR + "UnknownProperty"
    wrong = ("Get", "ss", "org.example.I", "Level")
    assert (await client.error_of(*wrong, interface=PROPERTIES))[0] == DBUS_ERROR + "UnknownInterface"
    assert await client.answer_to("GetAll", "s", INTROSPECTABLE, interface=PROPERTIES) == [{}]


async def test_signals(client: Client, served: Server, bus: SystemBus) -> None:
    await client.call(
        "AddMatch",
        "s",
        f"type='signal',sender='{BUS_NAME}'",
        interface="org.freedesktop.DBus",
        path="/org/freedesktop/DBus",
        to="org.freedesktop.DBus",
    )
    client.heard.clear()
    served.emit("Happened", "it", 3)
    served.changed("Level")
    await until(lambda: len(client.heard) == 2)
    assert client.heard == [
        ("Happened", ["it", 3]),
        ("PropertiesChanged", [MANAGER, {"Level": Variant("u", 1)}, []]),
    ]


async def test_introspection(client: Client, served: Server) -> None:
    [text] = await client.answer_to("Introspect", interface=INTROSPECTABLE)
    node = ElementTree.fromstring(text)
    assert {each.get("name") for each in node} == {
        MANAGER,
        PROPERTIES,
        INTROSPECTABLE,
        "org.freedesktop.DBus.Peer",
    }
    [above] = await client.answer_to("Introspect", interface=INTROSPECTABLE, path="/")
    assert [each.get("name") for each in ElementTree.fromstring(above)] == ["org"]


async def test_busctl_shows_it(daemon: Daemon, served: Server) -> None:
    status, out, _ = await _busctl(daemon, "introspect", BUS_NAME, PATH, MANAGER)
    assert status == 0
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert rows[".Double"] == ["method", "sa{sv}", "s", "-"]
    assert rows[".Level"] == ["property", "u", "1", "emits-change"]
    assert rows[".Happened"] == ["signal", "su", "-", "-"]
    status, out, _ = await _busctl(daemon, "tree", "--list", BUS_NAME)
    assert out.splitlines() == ["/", "/org", PATH]


async def test_no_reply_where_none_is_wanted(client: Client, service: Service) -> None:
    replies: list[Any] = []
    client._connection.add_message_handler(replies.append)
    for member, args in (("Double", ("sa{sv}", "ab", {})), ("Nothing", ()), ("Break", ()), ("Refuse", ())):
        await client.call(member, *args, flags=MessageFlag.NO_REPLY_EXPECTED)
    await until(lambda: service.callers)
    await client.answer_to("Ping", interface="org.freedesktop.DBus.Peer")
    kinds = [message.message_type for message in replies]
    assert [kind for kind in kinds if kind is not MessageType.SIGNAL] == [
        MessageType.METHOD_RETURN
    ]  # of Ping


async def test_signals_and_strange_replies_are_no_calls(
    client: Client, bus: SystemBus, service: Service
) -> None:
    client.emit(MANAGER, "Wait", PATH, "", to=bus.unique_name)
    client._connection.send(
        Message(
            message_type=MessageType.METHOD_RETURN,
            destination=bus.unique_name,
            reply_serial=4711,
            signature="",
        )
    )
    await client.answer_to("Ping", interface="org.freedesktop.DBus.Peer")
    assert service.waiting == 0


async def test_one_sender_cannot_have_too_much_in_flight(client: Client, service: Service) -> None:
    most = server.MAX_CALLS_OF_SENDER
    calls = [asyncio.create_task(client.call("Wait")) for _ in range(most)]
    await until(lambda: service.waiting == most)
    assert (await client.error_of("Wait"))[0] == DBUS_ERROR + "LimitsExceeded"
    service.go.set()
    for call in calls:
        assert (await call).message_type is MessageType.METHOD_RETURN
    assert await client.answer_to("Wait") == []


async def test_what_all_have_in_flight_is_bounded(
    client: Client, daemon: Daemon, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CALLS", 3)
    first = [asyncio.create_task(client.call("Wait")) for _ in range(3)]
    await until(lambda: service.waiting == 3)
    other = await Client.connect(daemon.address)
    assert (await other.error_of("Wait"))[0] == DBUS_ERROR + "LimitsExceeded"
    service.go.set()
    await asyncio.gather(*first)
    assert await other.answer_to("Wait") == []
    other.close()


async def test_one_user_cannot_keep_root_out(
    client: Client, daemon: Daemon, served: Server, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CALLS_OF_USER", 2)
    waits = [asyncio.create_task(_busctl(daemon, "call", BUS_NAME, PATH, MANAGER, "Wait")) for _ in range(2)]
    await until(lambda: service.waiting == 2)
    status, _, errors = await _busctl(daemon, "call", BUS_NAME, PATH, MANAGER, "Wait")
    assert status != 0
    assert "Too many calls of this user" in errors
    root = [asyncio.create_task(client.call("Wait")) for _ in range(3)]
    await until(lambda: service.waiting == 5)
    service.go.set()
    assert [status for status, _, _ in await asyncio.gather(*waits)] == [0, 0]
    await asyncio.gather(*root)
    assert not served._of_user


async def test_the_calls_of_a_vanished_caller_end(client: Client, service: Service, served: Server) -> None:
    calls = [asyncio.create_task(client.call("Wait")) for _ in range(3)]
    await until(lambda: service.waiting == 3)
    client.close()
    await until(lambda: service.cancelled == 3)
    await until(lambda: not served._tasks and not len(served._callers))
    assert not served._of_sender
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_many_callers_come_and_go(
    daemon: Daemon, served: Server, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callers, "MAX_KNOWN", 3)
    clients = [await Client.connect(daemon.address) for _ in range(6)]
    for each in clients:
        assert await each.answer_to("Double", "sa{sv}", "ab", {}) == ["abab"]
        assert len(served._callers) <= 3
    for each in clients:  # forgotten ones are identified again
        assert await each.answer_to("Double", "sa{sv}", "ab", {}) == ["abab"]
        each.close()
    await until(lambda: not len(served._callers))
    assert len({caller.unique_name for caller in service.callers}) == 6


async def test_a_name_that_another_process_owns(
    daemon: Daemon, bus: SystemBus, service: Service, stranger: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    await stranger.own(BUS_NAME)
    served = Server(bus, service.interface())
    await served.start()
    assert "while another process owns the name" in caplog.text
    await stranger.disown(BUS_NAME)
    client = await Client.connect(daemon.address)
    assert await client.answer_to("Double", "sa{sv}", "ab", {}) == ["abab"]
    client.close()
    served.stop()


async def test_a_bus_that_refuses_the_name(
    bus: SystemBus, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    served = Server(bus, service.interface(), name="not a name")
    await served.start()
    assert "the bus refuses it the name" in caplog.text
    served.stop()
