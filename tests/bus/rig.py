"""The program without its sources on a bus: what is told and asked there is real, the kernel is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from logindguard.config import Config, SweepSettings
from logindguard.config_file import ConfigError
from logindguard.control import Control
from logindguard.dbus.api import Api
from logindguard.guard import Guard
from logindguard.kernel.cgroupfs import Hierarchy
from logindguard.kernel.pressure import Signs
from logindguard.model import Mode, Outcome, Phase, ReclaimRecord, Source, Teardown, Way
from logindguard.pause import Pause
from logindguard.reclaimer import Reclaimer
from logindguard.record.history import Found, History, HistoryUnavailable
from logindguard.signals.bus import SystemBus
from logindguard.sweep import Sweep
from tests.unit.fake_backend import FakeBackend

from .fakes import until

ALICE = "/user.slice/user-1000.slice"
BOB = "/user.slice/user-1001.slice"
OF_BOB = f"{BOB}/user@1001.service/app.slice/ssh.service"  # any user can make such a cgroup
LONG_USEC = 10**12


def ended(number: int, uid: int) -> Teardown:
    unit = f"session-{number}.scope"
    return Teardown(
        unit=unit,
        path=f"/user.slice/user-{uid}.slice/{unit}",
        inode=number,
        phase=Phase.ENDED,
        source=Source.LOGIN1,
        heard_usec=1,
        session_id=str(number),
        uid=uid,
    )


def record(number: int, *uids: int) -> ReclaimRecord:
    return ReclaimRecord(
        id=f"{number:032x}",
        realtime_usec=1_000_000 + number,
        way=Way.AFTER,
        target="/user.slice",
        target_inode=7,
        outcome=Outcome.RELEASED,
        reason="nothing dying is left here",
        mode=Mode.PRECISE,
        teardowns=tuple(ended(number, uid) for uid in uids),
        dying_before=3,
        freed_bytes=4096,
        release_usec=350_000,
        context={"kernel": "6.1"},
    )


class Entries(History):
    """A journal of a test's own making."""

    def __init__(self) -> None:
        super().__init__()
        self.entries = [record(1, 1000), record(2, 1001), record(3, 1000, 1001), record(4, 1000)]
        self.broken = ""

    def find(
        self,
        *,
        since_usec: int = 0,
        until_usec: int = 0,
        limit: int = 0,
        max_rows: int = 0,
        wanted: Callable[[ReclaimRecord], bool] = lambda record: True,
        max_sec: float = 0,
    ) -> Found:
        if self.broken:
            raise HistoryUnavailable(self.broken)
        found = [
            each
            for each in reversed(self.entries)
            if each.realtime_usec >= since_usec
            and (not until_usec or each.realtime_usec <= until_usec)
            and wanted(each)
        ]
        return Found(found[: limit or None])

    def get(self, record_id: str) -> ReclaimRecord | None:
        if self.broken:
            raise HistoryUnavailable(self.broken)
        return next((each for each in self.entries if each.id == record_id), None)


@dataclass
class Rig:
    """The program without its sources: what is told and asked at the bus is real."""

    backend: FakeBackend
    sweep: Sweep
    pause: Pause
    control: Control
    history: Entries
    guard: Guard
    directory: Path
    reload_error: ConfigError | None = None
    reloads: list[str] = field(default_factory=list)
    api: Api | None = None

    def end(self, number: int, uid: int) -> None:
        """A session ended, as the registry tells it."""
        self.control.heard(ended(number, uid))


@asynccontextmanager
async def serving(bus: SystemBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    """Sweeps nothing but what is asked for."""
    monkeypatch.setattr("logindguard.sweep.read_signs", Signs)
    monkeypatch.setattr("logindguard.readings.MIN_AGE_USEC", 0)
    monkeypatch.setattr("logindguard.readings.SHARE", 0)
    tree = tmp_path / "tree"
    for path in (
        f"{ALICE}/session-1.scope",
        f"{BOB}/user@1001.service/app.slice/ssh.service",
        "/system.slice/ssh.service",
    ):
        (tree / path.strip("/")).mkdir(parents=True)
    backend = FakeBackend(hierarchy=Hierarchy(2, tree))
    config = Config(
        sweep=SweepSettings(
            interval_usec=LONG_USEC, cpu_percent=100.0, retry_first_usec=LONG_USEC, retry_max_usec=LONG_USEC
        )
    )
    made: list[Rig] = []

    def reload() -> None:
        if made[0].reload_error:
            raise made[0].reload_error
        made[0].reloads.append("reloaded")
        made[0].control.settings_changed()

    def pause_changed() -> None:
        made[0].sweep.again()
        made[0].control.pause_changed()

    with ThreadPoolExecutor(1, "prompt") as prompt, ThreadPoolExecutor(1, "idle") as idle:
        pause = Pause(tmp_path, pause_changed)
        reclaimer = Reclaimer(backend, config, prompt=prompt, idle=idle, held=lambda: pause.reason)
        guard = Guard(reclaimer, tell=lambda each: made[0].control.book(each), leave=lambda *_: None)
        sweep = Sweep(
            reclaimer,
            tell=lambda each: made[0].control.book(each),
            tell_paused=lambda reason: made[0].control.pause_changed(),
            tell_forecast=lambda dying, usec: None,
            free=guard.free,
            rescan=lambda: asyncio.sleep(0),
        )
        history = Entries()
        control = Control(
            reclaimer,
            guard,
            sweep,
            pause,
            directory=tmp_path,
            roots=(),
            reload=reload,
            config_files=lambda: (Path("/etc/logindguard/config.yaml"),),
            history=history,
        )
        rig = Rig(backend, sweep, pause, control, history, guard, tmp_path)
        made.append(rig)
        api = rig.api = Api(bus, control)
        await api.start()
        tasks = [asyncio.create_task(sweep.run()), asyncio.create_task(pause.run())]
        await until(lambda: sweep.last_took_usec > 0)  # from now on only what is asked for is swept
        yield rig
        api.stop()
        sweep.stop()
        await control.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert api._polkit is not None
        await until(lambda: not api._server._tasks and not api._server._callers._forgetting)
        await until(lambda: not api._polkit._cancelling)
