"""Logins by the thousand, as the guard hears of them: on a bus with logind and systemd, and in the tree."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.bench.drive import Bench, settled
from tests.bench.meter import Meter, histogram, nth_percent, rss_kib
from tests.bench.result import CHECKOUT, Bar, Result, Side, Value, load
from tests.bench.rivals import NO_GUARD, Field, Guarded
from tests.bus.conftest import Daemon as Bus
from tests.bus.fakes import FakeLogin1, FakeSystemd1
from tests.lab.leak import PAGE_BYTES, dying, own_cgroup
from tests.lab.visitor import Visitor, visitor

LOGINS = 10_000
A_MINUTE = 1_000
ALONE = 1_000  # of them, where nobody reclaims
LASTS_SEC = 0.5  # a session
BYTES_EACH = 4 * PAGE_BYTES
USERS = 50
WARM = 0.1  # of them: what is kept of past ones has its size then
AFTER_SEC = 3.0  # for what has still to settle
GROWTH_KIB = 2 << 10
CPU_USEC = 3_000
GUARD = Guarded(settings="reclaim: {shared: yes}\n")


def run(bench: Bench) -> Result:
    count = bench.count(LOGINS, least=40)
    before = load()
    with bench.field(GUARD) as on, _bus() as bus:
        side, bars = asyncio.run(_with_peers(bench, on, bus, count))
    with bench.field(NO_GUARD) as on, _bus() as bus:
        alone = asyncio.run(_messages(bench, on, bus, bench.count(ALONE, least=40)))
    return Result(
        bench="logins",
        about=f"{count} logins of {USERS} users, {A_MINUTE} a minute, simulated: cgroups, and what logind and"
        f" systemd say of them on a bus; each session lasts {LASTS_SEC:g} s and reads {BYTES_EACH >> 10} KiB",
        size={"count": count, "a_minute": A_MINUTE, "bytes_each": BYTES_EACH},
        sides=[side, alone],
        bars=bars,
        load_before=before,
    )


@contextmanager
def _bus() -> Iterator[Bus]:
    with tempfile.TemporaryDirectory(prefix="lg-bench-") as short:
        bus = Bus(Path(short), quiet=True)
        try:
            yield bus
        finally:
            bus.kill()


async def _with_peers(bench: Bench, on: Field, bus: Bus, count: int) -> tuple[Side, list[Bar]]:
    login1 = await FakeLogin1.connect(bus.address)
    systemd1 = await FakeSystemd1.connect(bus.address)
    try:
        return await _storm(bench, on, bus, login1, systemd1, count)
    finally:
        login1.close()
        systemd1.close()


async def _storm(
    bench: Bench, on: Field, bus: Bus, login1: FakeLogin1, systemd1: FakeSystemd1, count: int
) -> tuple[Side, list[Bar]]:
    floor = settled(on.parent)
    rival = replace(GUARD, bus_address=bus.address)
    file = _sparse(on, count)
    with rival.at_work(on) as work, visitor(own_cgroup(on.parent)) as guest:
        await asyncio.to_thread(bus.wait_name, "org.logindguard1")
        players = _Players(on, login1, systemd1, guest, file)
        warm_kib, warm = 0, round(count * WARM)
        started = time.monotonic()
        with Meter(work.pid) as meter:

            def begun(number: int) -> None:
                nonlocal warm_kib
                if number == warm:
                    warm_kib = rss_kib(work.pid)
                if number % 100 == 0:
                    bench.progress.now(f"{number} of {count} logins")

            await players.all(count, begun)
            took_sec = time.monotonic() - started
            await asyncio.sleep(AFTER_SEC)
            told = await asyncio.to_thread(statistics, bus)
            grew_kib = rss_kib(work.pid) - warm_kib
        left = dying(on.parent)
    players.clean()
    released = [each.release_usec for each in work.records if each.release_usec is not None]
    figures: dict[str, Value] = {
        "logins": count,
        "took_sec": round(took_sec, 1),
        "teardowns_heard": told["teardowns_total"],
        "teardowns_shed": told["teardowns_shed_total"],
        "most_waiting": work.most_waiting,
        "release_median_msec": round(nth_percent([*map(float, released)], 50) / 1000) if released else None,
        "release_longest_msec": max(released) // 1000 if released else None,
        "records": len(work.records),
        "freed_mib": told["freed_bytes_total"] >> 20,
        "dying_before": floor,
        "dying_after": left,
        "resident_warm_mib": round(warm_kib / 1024, 1),
        "resident_grew_kib": grew_kib,
        "cpu_msec": meter.total_usec // 1000,
        "cpu_per_teardown_usec": meter.total_usec // count,
        "most_cpu_in_a_second_msec": round(meter.process_usec / 1000, 1),
        "calls": len(work.calls),
        "longest_call_msec": max((each.wall_usec for each in work.calls), default=0) / 1000,
    }
    bench.progress.step(
        f"{figures['teardowns_heard']} teardowns of {count} heard, at most {work.most_waiting} waited,"
        f" grew by {grew_kib} KiB, {figures['cpu_per_teardown_usec']} us of CPU each"
    )
    side = Side(rival=rival.name, figures=figures, calls=histogram(each.cpu_usec for each in work.calls))
    bars = [
        Bar(
            wanted="no teardown lost",
            found=f"{told['teardowns_total']} heard of {count}, {told['teardowns_shed_total']} shed",
            met=told["teardowns_total"] == count and told["teardowns_shed_total"] == 0,
        ),
        Bar(
            wanted="the queue is bounded: never more than those of three seconds",
            found=f"{work.most_waiting} waited at most",
            met=work.most_waiting <= 3 * A_MINUTE // 60,
        ),
        Bar(
            wanted=f"the resident set grows by less than {GROWTH_KIB >> 10} MiB after the first tenth",
            found=f"{grew_kib} KiB",
            met=grew_kib < GROWTH_KIB,
        ),
        Bar(
            wanted=f"at most {CPU_USEC // 1000} ms of CPU for each teardown",
            found=f"{meter.total_usec / count / 1000:.2f} ms",
            met=meter.total_usec / count <= CPU_USEC,
        ),
    ]
    return side, bars


async def _messages(bench: Bench, on: Field, bus: Bus, count: int) -> Side:
    """What dbus-next alone takes for the messages of a teardown: none of ours can take less."""
    login1 = await FakeLogin1.connect(bus.address)
    systemd1 = await FakeSystemd1.connect(bus.address)
    command = [sys.executable, "-m", "tests.bench.messages", bus.address]
    process = await asyncio.to_thread(subprocess.Popen, command, cwd=CHECKOUT)
    try:
        with visitor(own_cgroup(on.parent)) as guest:
            await asyncio.to_thread(bus.wait_name, "org.logindguard1")
            players = _Players(on, login1, systemd1, guest, _sparse(on, count))
            with Meter(process.pid) as meter:
                await players.all(count)
            players.clean()
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)
        login1.close()
        systemd1.close()
    each_usec = meter.total_usec // count
    bench.progress.step(f"the same messages by dbus-next, and nothing else: {each_usec} us of CPU each")
    figures: dict[str, Value] = {
        "logins": count,
        "cpu_msec": meter.total_usec // 1000,
        "cpu_per_teardown_usec": each_usec,
    }
    return Side(rival="its messages alone", figures=figures, calls={})


def _sparse(on: Field, count: int) -> Path:
    file = on.place / "sparse"
    with file.open("wb") as opened:
        opened.truncate(count * BYTES_EACH)
    return file


class _Players:
    """logind, systemd and the users."""

    def __init__(
        self, on: Field, login1: FakeLogin1, systemd1: FakeSystemd1, guest: Visitor, file: Path
    ) -> None:
        self._login1, self._systemd1 = login1, systemd1
        self._guest, self._file = guest, file
        self._turn = asyncio.Lock()
        self._top = on.host.root / on.parent.name / "user.slice"
        self._top.mkdir()
        self._slices = []
        for uid in range(1000, 1000 + USERS):
            self._slices.append(self._top / f"user-{uid}.slice")
            self._slices[-1].mkdir()

    async def all(self, count: int, begun: Callable[[int], None] = lambda number: None) -> None:
        """As many sessions, A_MINUTE of them begun each minute."""
        started = time.monotonic()
        sessions = []
        for number in range(count):
            await asyncio.sleep(max(0, started + number * 60 / A_MINUTE - time.monotonic()))
            sessions.append(asyncio.create_task(self.session(number)))
            begun(number)
        await asyncio.gather(*sessions)

    async def session(self, number: int) -> None:
        """One login and its logout, in systemd's order."""
        unit, uid = f"session-{number}.scope", 1000 + number % USERS
        scope = self._slices[number % USERS] / unit
        scope.mkdir()
        self._login1.add(str(number), uid, "sshd")
        self._systemd1.unit_new(unit)
        self._login1.session_new(str(number))
        async with self._turn:
            await asyncio.to_thread(self._guest.read, scope, self._file, number * BYTES_EACH, BYTES_EACH)
        await asyncio.sleep(LASTS_SEC)
        self._systemd1.job_new(unit, "stop")
        await asyncio.sleep(0.01)
        scope.rmdir()
        self._systemd1.job_removed(unit)
        self._systemd1.unit_removed(unit)
        self._login1.session_removed(str(number))

    def clean(self) -> None:
        for each in (*self._slices, self._top):
            each.rmdir()


def statistics(bus: Bus) -> dict[str, Any]:
    call = [
        *("busctl", f"--address={bus.address}", "--json=short", "call", "org.logindguard1"),
        *("/org/logindguard1", "org.logindguard1.Manager", "GetStatistics"),
    ]
    done = subprocess.run(call, capture_output=True, text=True, timeout=60, check=True)
    return {name: value["data"] for name, value in json.loads(done.stdout)["data"][0].items()}
