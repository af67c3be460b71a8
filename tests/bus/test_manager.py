"""Every method, property, signal and error of the Manager: the program's own parts on a real bus."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dbus_next import MessageFlag, Variant

from logindguard import __version__
from logindguard import control as control_module
from logindguard import jobs as jobs_module
from logindguard import pause as pause_module
from logindguard.config_file import ConfigError
from logindguard.dbus import methods, values
from logindguard.dbus.names import BUS_NAME, MANAGER
from logindguard.kernel.cgroupfs import BadReading
from logindguard.kernel.pressure import Signs
from logindguard.model import JobState, Mode
from logindguard.reclaimer import now_usec
from logindguard.signals.bus import SystemBus, plain
from tests.unit.fake_backend import MIB

from .conftest import Daemon, Lag
from .fakes import until
from .rig import ALICE, BOB, OF_BOB, Rig, record, serving
from .test_dbus_server import Client
from .test_polkit import FakePolkit
from .user import Failed, User, option


@pytest.fixture
async def rig(bus: SystemBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    async with serving(bus, tmp_path, monkeypatch) as rig:
        yield rig


@pytest.fixture
async def root(daemon: Daemon, rig: Rig) -> AsyncIterator[Client]:
    client = await Client.connect(daemon.address)
    await client.call(
        "AddMatch",
        "s",
        f"type='signal',sender='{BUS_NAME}'",
        interface="org.freedesktop.DBus",
        path="/org/freedesktop/DBus",
        to="org.freedesktop.DBus",
    )
    client.heard.clear()
    yield client
    client.close()


@pytest.fixture
async def alice(daemon: Daemon, rig: Rig) -> AsyncIterator[User]:
    user = await User.start(daemon.address, 1000)
    yield user
    await user.stop()


@pytest.fixture
async def authority(daemon: Daemon) -> AsyncIterator[FakePolkit]:
    """Says no until it is told otherwise."""
    peer = await FakePolkit.connect(daemon.address)
    peer.verdict = [False, True, {}]
    yield peer
    peer.close()


async def ask(client: Client, member: str, signature: str = "", *body: Any) -> Any:
    values = [plain(value) for value in await client.answer_to(member, signature, *body)]
    return values[0] if len(values) == 1 else values


async def error(client: Client, member: str, signature: str = "", *body: Any) -> tuple[str, str]:
    name, sentence = await client.error_of(member, signature, *body)
    assert sentence.endswith(".")
    return name.removeprefix("org."), sentence


async def refusal(user: User, member: str, signature: str = "", *body: Any, **more: Any) -> str:
    with pytest.raises(Failed) as caught:
        await user.call(member, signature, *body, **more)
    return caught.value.name


def jobs_finished(client: Client) -> list[Any]:
    return [body for member, body in client.heard if member == "JobFinished"]


# Properties and totals


async def test_properties(root: Client, alice: User, rig: Rig) -> None:
    rig.backend.hold(ALICE, 3, 10 * MIB)
    rig.guard.teardowns_total = 5
    rig.control.book(record(9, 1000))
    await rig.control.residues()
    values = await alice.call("GetAll", "s", MANAGER, interface="org.freedesktop.DBus.Properties")
    assert values.pop("LastSweepTimestamp") > 0
    assert values.pop("LastSweepUSec") > 0
    assert values == {
        "Version": __version__,
        "Mode": "precise",
        "ModeReason": "a test",
        "Backend": "fake",
        "CgroupVersion": 2,
        "KernelFeatures": [],
        "ConfigFiles": ["/etc/logindguard/config.yaml"],
        "Paused": False,
        "PauseReason": "",
        "SweepPauseReason": "",
        "DyingCount": 3,
        "ResidueBytes": 10 * MIB,
        "TeardownsTotal": 5,
        "ReclaimsTotal": [["after", "released", 1]],
        "ReclaimedBytesTotal": 4096,
        "StolenPagesTotal": 0,
    }


async def test_statistics_name_nobody(alice: User, rig: Rig) -> None:
    rig.backend.hold(ALICE, 3, 10 * MIB)
    rig.control.book(record(9, 1000))
    told = await alice.call("GetStatistics")
    assert told["reclaims"] == [{"way": "after", "outcome": "released", "count": 1}]
    assert (told["dying"], told["residue_bytes"], told["residues"]) == (3, 10 * MIB, 1)
    assert (told["freed_bytes_total"], told["last_reclaim_usec"]) == (4096, 1_000_009)
    assert "1000" not in str({**told, "last_reclaim_usec": 0})


async def test_the_mode_is_told_at_the_start(daemon: Daemon, rig: Rig, bus: SystemBus, root: Client) -> None:
    assert rig.api is not None
    rig.api.mode_changed()
    await until(lambda: len(root.heard) == 2)
    assert root.heard[0][0] == "PropertiesChanged"
    assert sorted(root.heard[0][1][1]) == ["Backend", "Mode", "ModeReason"]
    assert root.heard[1] == ("ModeChanged", ["precise", "a test"])


# Residues


async def test_residues_of_everybody_for_root(root: Client, rig: Rig) -> None:
    rig.backend.hold(ALICE, 3, 10 * MIB, dirty_bytes=4096)
    rig.backend.hold("/system.slice", 2, MIB)
    rows = {row["path"]: row for row in await ask(root, "ListResidues")}
    assert rows[ALICE] == {
        "path": ALICE,
        "inode": 10,
        "unit": "user-1000.slice",
        "uid": 1000,
        "dying": 3,
        "file_bytes": 10 * MIB,
        "mapped_bytes": 0,
        "dirty_bytes": 4096,
        "writeback_bytes": 0,
        "shmem_bytes": 0,
        "anon_bytes": 0,
        "tries": 0,
        "rung": "reclaim",
        "reason": "",
    }
    assert "uid" not in rows["/system.slice"]


async def test_what_was_tried_and_when_it_is_tried_again(root: Client, rig: Rig) -> None:
    rig.backend.hold(ALICE, 3, 10 * MIB, dirty_bytes=10 * MIB)
    await ask(root, "Sweep", "a{sv}", {})
    await until(lambda: jobs_finished(root))
    [row] = await ask(root, "ListResidues")
    assert (row["tries"], row["rung"]) == (1, "writeback")
    assert row["reason"] == "what is left waits for writeback"
    assert row["next_usec"] > time.time_ns() // 1000


async def test_residues_of_others_are_summed_up(alice: User, authority: FakePolkit, rig: Rig) -> None:
    rig.backend.hold(ALICE, 3, 10 * MIB)
    rig.backend.hold(BOB, 2, MIB)
    rig.backend.hold("/user.slice/user-1002.slice", 4, MIB)
    rig.backend.hold("/system.slice", 1, MIB)
    rows = {row["path"]: row for row in await alice.call("ListResidues")}
    assert sorted(rows) == ["/system.slice", "/user.slice", ALICE]
    assert {name: rows["/user.slice"][name] for name in ("dying", "file_bytes")} == {
        "dying": 6,
        "file_bytes": 2 * MIB,
    }
    assert not {"inode", "unit", "uid", "reason"} & set(rows["/user.slice"])
    authority.verdict = [True, False, {}]
    assert len(await alice.call("ListResidues")) == 4


async def test_nothing_of_others_needs_no_polkit(alice: User, rig: Rig) -> None:
    rig.backend.hold(ALICE, 3, 10 * MIB)
    assert [row["path"] for row in await alice.call("ListResidues")] == [ALICE]


async def test_residues_that_cannot_be_read(root: Client, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> int:
        raise BadReading("/", "cgroup.stat", "no key")

    monkeypatch.setattr(rig.backend, "total_dying", broken)
    assert (await error(root, "ListResidues"))[0] == "logindguard1.Error.Failed"


# History


async def test_reclaims_newest_first_and_bounded(root: Client, rig: Rig) -> None:
    async def ids(*bounds: int) -> list[int]:
        return [int(row["id"], 16) for row in await ask(root, "ListReclaims", "ttu", *bounds)]

    assert await ids(0, 0, 0) == [4, 3, 2, 1]
    assert await ids(1_000_002, 1_000_003, 0) == [3, 2]
    assert await ids(0, 0, 2) == [4, 3]
    rig.control.book(record(5, 1000))  # the journal has not taken it in yet
    rig.control.book(record(4, 1000))
    assert await ids(0, 0, 0) == [5, 4, 3, 2, 1]
    assert await ids(0, 1_000_004, 1) == [4]


UINT32_MAX, UINT64_MAX = (1 << 32) - 1, (1 << 64) - 1


@pytest.mark.parametrize(
    ("bounds", "count"),
    [
        ((0, UINT64_MAX, UINT32_MAX), 4),
        ((0, 1 << 63, 1), 1),
        ((1, UINT64_MAX, 0), 4),
        ((0, 1, UINT32_MAX), 0),
        ((UINT64_MAX, 0, 0), 0),
        ((UINT64_MAX, UINT64_MAX, UINT32_MAX), 0),
        ((UINT64_MAX, 1, 0), 0),
    ],
)
async def test_bounds_at_their_extremes(root: Client, bounds: tuple[int, ...], count: int) -> None:
    assert len(await ask(root, "ListReclaims", "ttu", *bounds)) == count


@pytest.mark.parametrize("usec", [pause_module.MAX_USEC + 1, 1 << 63, UINT64_MAX])
async def test_pauses_that_are_too_long(root: Client, rig: Rig, usec: int) -> None:
    name, sentence = await error(root, "Pause", "t", usec)
    assert (name, sentence) == ("freedesktop.DBus.Error.InvalidArgs", "A pause is 10 years at most.")
    assert rig.pause.reason == ""


async def test_the_longest_and_the_shortest_pause(root: Client, rig: Rig) -> None:
    await ask(root, "Pause", "t", pause_module.MAX_USEC)
    assert rig.pause.reason.startswith("paused until 2")
    await ask(root, "Pause", "t", 1)
    await until(lambda: not rig.pause.reason)


@pytest.mark.parametrize("job", [0, 1, UINT32_MAX])
async def test_jobs_that_never_were(root: Client, job: int) -> None:
    assert (await error(root, "CancelJob", "u", job))[0] == "logindguard1.Error.NoSuchJob"


async def test_a_reclaim_as_it_travels(root: Client) -> None:
    told = await ask(root, "GetReclaim", "s", f"{3:032x}")
    assert told["teardowns"][1]["uid"] == 1001
    assert told["context"] == {"kernel": "6.1"}
    assert (told["way"], told["release_usec"], told["mapped_kept_bytes"]) == ("after", 350_000, 0)
    [reply] = await root.answer_to("GetReclaim", "s", f"{3:032x}")
    assert reply["dying_before"].signature == "t"
    assert reply["teardowns"].signature == "aa{sv}"
    none = replace(record(8, 1000), release_usec=None)
    assert "release_usec" not in values.row(none)


@pytest.mark.parametrize("record_id", ["9" * 32, "", "../x", "x" * 100])
async def test_a_reclaim_that_is_not_there(root: Client, record_id: str) -> None:
    name, _ = await error(root, "GetReclaim", "s", record_id)
    assert name == "logindguard1.Error.NoSuchReclaim"


async def test_a_user_sees_its_own(alice: User, authority: FakePolkit) -> None:
    async def ids() -> list[int]:
        return [int(row["id"], 16) for row in await alice.call("ListReclaims", "ttu", 0, 0, 0)]

    assert await ids() == [4, 1]
    assert (await alice.call("GetReclaim", "s", f"{1:032x}"))["dying_before"] == 3
    for number in (2, 3):
        assert await refusal(alice, "GetReclaim", "s", f"{number:032x}") == "InteractiveAuthorizationRequired"
    authority.verdict = [True, False, {}]
    assert await ids() == [4, 3, 2, 1]
    assert (await alice.call("GetReclaim", "s", f"{2:032x}"))["teardowns"][0]["uid"] == 1001


async def test_without_polkit_a_user_still_sees_its_own(alice: User) -> None:
    assert len(await alice.call("ListReclaims", "ttu", 0, 0, 0)) == 2
    assert await refusal(alice, "GetReclaim", "s", f"{2:032x}") == "AccessDenied"


async def test_a_journal_that_cannot_be_read(root: Client, rig: Rig) -> None:
    rig.history.broken = "The journal cannot be read: Permission denied."
    for call in (("ListReclaims", "ttu", 0, 0, 0), ("GetReclaim", "s", "1" * 32)):
        name, sentence = await error(root, *call)
        assert (name, sentence) == ("logindguard1.Error.HistoryUnavailable", rig.history.broken)


async def test_queries_are_bounded(root: Client, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_module, "MAX_QUERIES", 0)
    name, _ = await error(root, "ListReclaims", "ttu", 0, 0, 0)
    assert name == "freedesktop.DBus.Error.LimitsExceeded"


async def test_one_user_leaves_room_for_the_queries_of_others(
    root: Client, alice: User, daemon: Daemon, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "MAX_QUERIES_OF_USER", 1)
    find, goes_on = rig.history.find, threading.Event()
    monkeypatch.setattr(rig.history, "find", lambda **query: (goes_on.wait(20), find(**query))[1])
    her_first = asyncio.create_task(alice.call("ListReclaims", "ttu", 0, 0, 0))
    await until(lambda: rig.control._queries == 1)
    hers_too = await User.start(daemon.address, 1000)
    assert await refusal(hers_too, "ListReclaims", "ttu", 0, 0, 0) == "LimitsExceeded"
    roots = asyncio.create_task(ask(root, "ListReclaims", "ttu", 0, 0, 0))
    await until(lambda: rig.control._queries == 2)
    goes_on.set()
    assert len(await roots) > len(await her_first)
    await hers_too.stop()


# Jobs


async def test_a_sweep_is_a_job(root: Client, rig: Rig) -> None:
    rig.backend.hold(ALICE, 3, 10 * MIB)
    rig.backend.hold(BOB, 2, MIB)
    job, plan = await ask(root, "Sweep", "a{sv}", {})
    assert job == 1
    assert plan == []
    await until(lambda: jobs_finished(root) == [[1, "done"]])
    assert set(rig.backend.reclaimed()) == {ALICE, BOB}
    [row] = await ask(root, "ListJobs")
    assert row.pop("finished_usec") >= row.pop("started_usec")
    assert row == {
        "id": 1,
        "kind": "sweep",
        "subject": "",
        "uid": 0,
        "state": "done",
        "dying_before": 5,
        "dying_after": 0,
        "freed_bytes": 11 * MIB,
        "stolen_pages": 0,
        "outcome": "released",
        "reason": "nothing dying is left here",
    }
    told = [plain(body[0]) for member, body in root.heard if member == "Reclaimed"]
    assert {each["slice"] for each in told} == {"/user.slice"}
    assert {each["unit_class"] for each in told} == {"slice"}
    assert "1000" not in str([{**each, "id": ""} for each in told])


async def test_a_sweep_of_one_subtree(root: Client, rig: Rig) -> None:
    rig.backend.hold(ALICE, 3, 10 * MIB)
    rig.backend.hold(BOB, 2, MIB)
    await ask(root, "Sweep", "a{sv}", {"path": Variant("s", BOB)})
    await until(lambda: jobs_finished(root))
    assert rig.backend.reclaimed() == [BOB]


@pytest.mark.parametrize("dry_run", [False, True])
async def test_a_sweep_of_no_cgroup(root: Client, rig: Rig, dry_run: bool) -> None:
    options = {"path": Variant("s", "/usr.slice"), "dry_run": Variant("b", dry_run)}
    assert await error(root, "Sweep", "a{sv}", options) == (
        "freedesktop.DBus.Error.InvalidArgs",
        "There is no cgroup /usr.slice.",
    )
    rig.control._roots = ("/user.slice",)
    options["path"] = Variant("s", "/system.slice")
    assert (await error(root, "Sweep", "a{sv}", options))[1].startswith(
        "The settings leave /system.slice alone"
    )
    for path in ("/", ALICE):
        await ask(root, "Sweep", "a{sv}", {**options, "path": Variant("s", path)})


async def test_a_unit_that_lives_and_one_that_ended(root: Client, rig: Rig) -> None:
    rig.backend.hold(ALICE, 3, 10 * MIB)
    rig.backend.hold(BOB, 2, MIB)
    rig.backend.hold(f"{ALICE}/session-1.scope", 1, MIB)
    await ask(root, "ReclaimSession", "sa{sv}", "1", {})
    await until(lambda: len(jobs_finished(root)) == 1)
    assert rig.backend.reclaimed() == [f"{ALICE}/session-1.scope"]
    rig.end(8, 1001)
    await ask(root, "ReclaimUnit", "sa{sv}", "session-8.scope", {})
    await until(lambda: len(jobs_finished(root)) == 2)
    assert rig.backend.reclaimed()[1:] == [BOB]
    await ask(root, "ReclaimUnit", "sa{sv}", "user-1000.slice", {})
    await until(lambda: len(jobs_finished(root)) == 3)
    assert rig.backend.reclaimed()[2:] == [ALICE]


async def test_a_users_own_unit_is_not_the_systems(root: Client, rig: Rig) -> None:
    """Below user@UID.service a user names cgroups at will."""
    rig.backend.hold(OF_BOB, 3, 10 * MIB)
    await ask(root, "ReclaimUnit", "sa{sv}", "ssh.service", {})
    await until(lambda: jobs_finished(root))
    assert rig.backend.reclaimed() == []


@pytest.mark.parametrize(
    ("member", "subject", "expected"),
    [
        ("ReclaimUnit", "none.service", "NoSuchUnit"),
        ("ReclaimUnit", "/system.slice/ssh.service", "NoSuchUnit"),
        ("ReclaimUnit", "../ssh.service", "NoSuchUnit"),
        ("ReclaimUnit", "system.slice/ssh.service", "NoSuchUnit"),
        ("ReclaimUnit", "ssh", "NoSuchUnit"),
        ("ReclaimUnit", "", "NoSuchUnit"),
        ("ReclaimUnit", "x" * 500 + ".service", "NoSuchUnit"),
        ("ReclaimSession", "77", "NoSuchSession"),
        ("ReclaimSession", "", "NoSuchSession"),
        ("ReclaimSession", "1.scope/../x", "NoSuchSession"),
    ],
)
async def test_what_is_not_there(root: Client, rig: Rig, member: str, subject: str, expected: str) -> None:
    assert (await error(root, member, "sa{sv}", subject, {}))[0] == f"logindguard1.Error.{expected}"
    assert rig.backend.reclaimed() == []


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"dry-run": ("b", True)}, "dry-run"),
        ({"dry_run": ("s", "yes")}, "dry_run"),
        ({"path": ("s", "user.slice")}, "path"),
        ({"path": ("s", "/a/../b")}, "path"),
        ({"path": ("as", ["/a"])}, "path"),
    ],
)
async def test_options_that_do_not_fit(root: Client, options: dict[str, tuple[str, Any]], word: str) -> None:
    given = {name: Variant(*value) for name, value in options.items()}
    name, sentence = await error(root, "Sweep", "a{sv}", given)
    assert name == "freedesktop.DBus.Error.InvalidArgs"
    assert word in sentence


async def test_a_dry_run_writes_nothing(root: Client, alice: User, authority: FakePolkit, rig: Rig) -> None:
    rig.backend.hold(ALICE, 3, 10 * MIB)
    rig.backend.hold(BOB, 2, MIB)
    wanted = {"dry_run": Variant("b", True)}
    row = {"path": BOB, "file": "memory.reclaim", "value": str(MIB), "purpose": "reclaim"}
    assert await ask(root, "ReclaimUnit", "sa{sv}", "user-1001.slice", wanted) == [0, [row]]
    assert len((await ask(root, "Sweep", "a{sv}", wanted))[1]) == 2
    await ask(root, "Pause", "t", 0)
    assert len((await ask(root, "Sweep", "a{sv}", wanted))[1]) == 2  # nothing is begun by it
    authority.verdict = [True, False, {}]
    assert (await alice.call("Sweep", "a{sv}", {"dry_run": option("b", True)}))[0] == 0
    assert rig.backend.reclaimed() == []
    assert await ask(root, "ListJobs") == []
    rig.backend.mode, rig.backend.reason = Mode.OBSERVE, "this kernel heals itself"
    assert (await error(root, "Sweep", "a{sv}", wanted))[0] == "logindguard1.Error.NotSupported"


async def test_a_sweep_that_waits_for_the_host_says_why(
    root: Client, alice: User, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    percents = iter([50.0, 50.0])
    monkeypatch.setattr("logindguard.sweep.read_signs", lambda: Signs(io_percent=next(percents, 0.0) + 20.0))
    monkeypatch.setattr("logindguard.sweep.PRESSURE_POLL_SEC", 0.01)
    rig.backend.hold(ALICE, 3, MIB)
    await ask(root, "Sweep", "a{sv}", {})
    await until(lambda: jobs_finished(root))
    changes = [plain(body[1]) for member, body in root.heard if member == "PropertiesChanged"]
    assert [each["SweepPauseReason"] for each in changes] == ["I/O pressure (70 % some)", ""]
    assert {each["Paused"] for each in changes} == {False}
    assert await alice.get("SweepPauseReason") == ""


async def test_cancelling(root: Client, alice: User, authority: FakePolkit, rig: Rig) -> None:
    rig.backend.hold(ALICE, 3, 1000 * MIB)
    rig.backend.per_window_bytes, rig.backend.window_sec = MIB, 0.02
    job, _ = await ask(root, "Sweep", "a{sv}", {})
    await until(lambda: rig.backend.reclaimed())
    assert await refusal(alice, "CancelJob", "u", job) == "InteractiveAuthorizationRequired"
    await ask(root, "CancelJob", "u", job)
    await until(lambda: jobs_finished(root) == [[job, "canceled"]])
    await ask(root, "CancelJob", "u", job)  # once more is no error
    assert (await error(root, "CancelJob", "u", 99))[0] == "logindguard1.Error.NoSuchJob"


async def test_a_job_goes_on_without_its_caller(
    daemon: Daemon, root: Client, authority: FakePolkit, rig: Rig
) -> None:
    authority.verdict = [True, False, {}]
    rig.backend.hold(ALICE, 3, 20 * MIB)
    rig.backend.per_window_bytes, rig.backend.window_sec = MIB, 0.01
    user = await User.start(daemon.address, 1000)
    job, _ = await user.call("ReclaimUnit", "sa{sv}", "user-1000.slice", {})
    await user.stop()
    await until(lambda: jobs_finished(root) == [[job, "done"]])
    assert rig.backend.state[ALICE].dying == 0


async def test_jobs_of_one_user_are_bounded_and_its_own_to_cancel(
    root: Client, alice: User, authority: FakePolkit, rig: Rig
) -> None:
    authority.verdict = [True, False, {}]
    rig.backend.hold(ALICE, 3, 1000 * MIB)
    rig.backend.per_window_bytes, rig.backend.window_sec = MIB, 0.02
    for _ in range(jobs_module.MAX_RUNNING_OF_USER):
        await alice.call("Sweep", "a{sv}", {})
    assert await refusal(alice, "Sweep", "a{sv}", {}) == "LimitsExceeded"
    authority.verdict = [False, False, {}]
    other, _ = await ask(root, "Sweep", "a{sv}", {})
    rows = {row["id"]: row for row in await alice.call("ListJobs")}
    assert "uid" not in rows[other]
    assert rows[1]["uid"] == 1000
    for job in range(1, jobs_module.MAX_RUNNING_OF_USER + 1):
        await alice.call("CancelJob", "u", job)
    await until(lambda: len(jobs_finished(root)) == jobs_module.MAX_RUNNING_OF_USER)
    assert await refusal(alice, "CancelJob", "u", other) == "AccessDenied"
    await ask(root, "CancelJob", "u", other)
    await until(lambda: [other, "canceled"] in jobs_finished(root))


async def test_observing_reclaims_nothing(root: Client, rig: Rig) -> None:
    rig.backend.mode, rig.backend.reason = Mode.OBSERVE, "this kernel heals itself"
    name, sentence = await error(root, "Sweep", "a{sv}", {})
    assert name == "logindguard1.Error.NotSupported"
    assert "this kernel heals itself" in sentence


# Steering


async def test_pause_and_resume(root: Client, rig: Rig) -> None:
    rig.backend.hold(ALICE, 3, MIB)
    await ask(root, "Pause", "t", 0)
    reason = "paused until it is resumed"
    assert (await error(root, "Sweep", "a{sv}", {})) == (
        "logindguard1.Error.Paused",
        "Nothing is reclaimed: paused by root until it is resumed.",
    )
    await ask(root, "Resume")

    def changes() -> list[tuple[bool, str]]:
        """In their order; the sweep, which waits for the same, tells of it as well."""
        told = [plain(body[1]) for member, body in root.heard if member == "PropertiesChanged"]
        return list(dict.fromkeys((each["Paused"], each["PauseReason"]) for each in told))

    await until(lambda: len(changes()) == 2)
    assert changes() == [(True, reason), (False, "")]
    await ask(root, "Sweep", "a{sv}", {})
    await until(lambda: jobs_finished(root))


async def test_a_pause_ends_by_itself(root: Client, alice: User) -> None:
    await ask(root, "Pause", "t", 200_000)
    assert await alice.get("Paused") is True
    await until(lambda: len(root.heard) == 2)
    assert await alice.get("Paused") is False


async def test_a_pause_that_cannot_be_kept(root: Client, rig: Rig) -> None:
    (rig.directory / "paused").mkdir()
    (rig.directory / "paused" / "x").touch()
    assert (await error(root, "Pause", "t", 0))[0] == "logindguard1.Error.Failed"
    assert (await error(root, "Resume"))[0] == "logindguard1.Error.Failed"


async def test_reload(root: Client, rig: Rig) -> None:
    await ask(root, "Reload")
    assert rig.reloads == ["reloaded"]
    await until(lambda: root.heard)
    assert sorted(root.heard[0][1][1]) == ["ConfigFiles"]
    rig.reload_error = ConfigError("unknown key 'x'.", file=Path("/etc/logindguard/config.yaml"), line=3)
    assert await error(root, "Reload") == (
        "logindguard1.Error.InvalidConfig",
        "/etc/logindguard/config.yaml:3: unknown key 'x'.",
    )


async def test_restore(root: Client, rig: Rig) -> None:
    assert await ask(root, "Restore") == 0
    (rig.directory / "ledger").write_text("nonsense")
    assert (await error(root, "Restore"))[0] == "logindguard1.Error.RestoreFailed"


# Who may

CHANGING: list[tuple[tuple[Any, ...], str]] = [
    (("Sweep", "a{sv}", {}), "sweep"),
    (("ReclaimUnit", "sa{sv}", "user-1000.slice", {}), "reclaim"),
    (("ReclaimSession", "sa{sv}", "1", {}), "reclaim"),
    (("Pause", "t", 0), "sweep"),
    (("Resume",), "sweep"),
    (("Reload",), "reload"),
    (("Restore",), "reload"),
    (("Sweep", "a{sv}", {"dry_run": option("b", True)}), "read-details"),
]


async def test_each_change_needs_its_action(alice: User, authority: FakePolkit, rig: Rig) -> None:
    rig.backend.hold(ALICE, 3, MIB)
    for call, action in CHANGING:
        authority.verdict = [False, True, {}]
        authority.asked.clear()
        assert await refusal(alice, *call) == "InteractiveAuthorizationRequired"
        authority.verdict = [False, False, {}]
        assert await refusal(alice, *call, interactive=True) == "AccessDenied"
        assert [(asked[1], asked[3]) for asked in authority.asked] == [
            (f"org.logindguard1.{action}", 0),
            (f"org.logindguard1.{action}", 1),
        ]
        assert authority.asked[0][0][1]["name"].value == alice.unique_name
    assert rig.backend.reclaimed() == []
    assert rig.reloads == []
    assert rig.pause.reason == ""


async def test_polkit_allows(alice: User, root: Client, authority: FakePolkit, rig: Rig) -> None:
    authority.verdict = [True, False, {}]
    await alice.call("Pause", "t", 0)
    assert rig.pause.details == "paused by uid 1000 until it is resumed"
    assert await alice.get("PauseReason") == "paused until it is resumed"
    await alice.call("Resume")
    await alice.call("Resume")  # once more changes nothing, and is no error
    await until(lambda: len([1 for member, _ in root.heard if member == "PropertiesChanged"]) == 2)
    assert "1000" not in str(root.heard)  # who paused is broadcast to nobody
    await alice.call("Reload")
    assert rig.reloads == ["reloaded"]
    assert await alice.call("Restore") == 0
    assert (await alice.call("Sweep", "a{sv}", {}))[0] == 1


async def test_each_change_is_allowed_by_its_action(alice: User, authority: FakePolkit, rig: Rig) -> None:
    rig.backend.hold(ALICE, 3, MIB)
    authority.verdict = [True, False, {}]
    for call, _ in CHANGING:
        await alice.call(*call)
        await until(lambda: all(job.state is JobState.DONE for job in rig.control.jobs()))  # before a pause
    assert len(rig.control.jobs()) == 3
    assert rig.backend.reclaimed() == [ALICE]


async def test_polkit_that_hangs_is_a_no(
    alice: User, root: Client, authority: FakePolkit, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rig.api is not None
    monkeypatch.setattr(rig.api._polkit, "_deadline_sec", 0.2)
    authority.silent.add("CheckAuthorization")
    rig.backend.hold(BOB, 3, MIB)
    job, _ = await ask(root, "Sweep", "a{sv}", {"path": Variant("s", ALICE)})
    for call, _ in CHANGING:
        assert await refusal(alice, *call) == "AccessDenied"
    assert await refusal(alice, "CancelJob", "u", job) == "AccessDenied"
    assert await refusal(alice, "GetReclaim", "s", f"{2:032x}") == "AccessDenied"
    assert [row["path"] for row in await alice.call("ListResidues")] == ["/user.slice"]
    assert len(await alice.call("ListReclaims", "ttu", 0, 0, 0)) == 2
    assert not {"uid", "subject"} & set((await alice.call("ListJobs"))[0])
    authority.calls.clear()
    await alice.call("GetStatistics")  # names nobody, so nobody is asked
    await alice.get("PauseReason")
    assert "CheckAuthorization" not in authority.calls
    assert rig.backend.reclaimed() == []
    assert rig.reloads == []


async def test_without_polkit_only_root_may(alice: User, root: Client, rig: Rig) -> None:
    for call, _ in CHANGING:
        assert await refusal(alice, *call) == "AccessDenied"
    await ask(root, "Pause", "t", 0)
    await ask(root, "Resume")


async def test_polkit_that_hangs_holds_nobody_up(
    alice: User, root: Client, authority: FakePolkit, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rig.api is not None
    monkeypatch.setattr(rig.api._polkit, "_deadline_sec", 1.0)
    authority.silent.add("CheckAuthorization")
    waiting = asyncio.create_task(refusal(alice, "Pause", "t", 0))
    await until(lambda: authority.calls)
    await ask(root, "Pause", "t", 0)  # meanwhile
    assert not waiting.done()
    assert await waiting == "AccessDenied"
    assert rig.pause.details == "paused by root until it is resumed"


async def test_whoever_leaves_takes_its_question_along(
    daemon: Daemon, authority: FakePolkit, rig: Rig
) -> None:
    authority.silent.add("CheckAuthorization")
    user = await User.start(daemon.address, 1000)
    asking = asyncio.create_task(user.call("Pause", "t", 0, interactive=True))
    await until(lambda: authority.calls == ["CheckAuthorization"])
    await user.stop()
    await until(lambda: len(authority.canceled) == 1)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert rig.pause.reason == ""


# Names that are no UTF-8, or worse


async def test_strange_names_travel_escaped(root: Client, rig: Rig) -> None:
    strange = f"{ALICE}/a\udcffb\nc"
    rig.backend.hold(strange, 3, MIB)
    rows = await ask(root, "ListResidues")
    assert [row["path"] for row in rows] == [f"{ALICE}/a\\udcffb\nc"]
    now = now_usec()
    rig.control.book(replace(record(9, 1000), reason="a\0b", target=strange))
    told = await ask(root, "GetReclaim", "s", f"{9:032x}")
    assert (told["reason"], told["target"]) == ("a\\x00b", f"{ALICE}/a\\udcffb\nc")
    assert now_usec() >= now


async def test_large_answers_leave_the_loop_alive(root: Client, rig: Rig, worst_lag: Lag) -> None:
    many = tuple(each for number in range(100) for each in record(number, 1000, 1001).teardowns)
    rig.history.entries = [replace(record(number, 1000), teardowns=many) for number in range(24)]
    calls = [ask(root, "ListReclaims", "ttu", 0, 0, 0) for _ in range(3)]
    answers = await asyncio.gather(*calls)
    assert [len(answer) for answer in answers] == [24] * 3
    assert worst_lag.turns > 20


async def test_large_answers_are_made_few_at_a_time_and_for_those_who_wait(root: Client, rig: Rig) -> None:
    root_flags = MessageFlag.NO_REPLY_EXPECTED
    await root.call("ListReclaims", "ttu", 0, 0, 0, flags=root_flags)
    assert rig.api is not None
    server = rig.api._server
    async with server._large, server._large:
        asked = [asyncio.create_task(ask(root, "ListReclaims", "ttu", 0, 0, 0)) for _ in range(3)]
        await ask(root, "ListJobs")  # the others are answered meanwhile
        assert not any(task.done() for task in asked)
    assert [len(await task) for task in asked] == [4, 4, 4]
