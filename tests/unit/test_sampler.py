"""What is told regularly: a textfile that is never half, samples when they are due."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from logindguard.config import MetricsSettings
from logindguard.kernel.cgroupfs import CgroupGone
from logindguard.metrics import Figures
from logindguard.model import Mode, Sample
from logindguard.record.textfile import replace_text
from logindguard.sampler import Sampler
from logindguard.statistics import Stopwatch

DEADLINE_SEC = 20.0
OFF = MetricsSettings(sample_usec=0)
FIGURES = Figures(
    version="0.1.0",
    mode="observe",
    dying=3,
    residues=[("/user.slice", 3, 4096), ("/system.slice", 0, 1)],
    statistics={
        "teardowns_total": 7,
        "freed_bytes_total": 8192,
        "stolen_pages_total": 0,
        "cpu_usec_total": 5,
    },
)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SEC):
        while not condition():  # noqa: ASYNC110  # what is waited for sets no event
            await asyncio.sleep(0.005)


class Host:
    """Gives figures and takes samples; `settings` may be changed at any time."""

    def __init__(self, settings: MetricsSettings) -> None:
        self.settings = settings
        self.failure: Exception | None = None
        self.asked = 0
        self.samples: list[Sample] = []
        self.sampler = Sampler(self._figures, lambda: self.settings, tell=self.samples.append)

    async def _figures(self) -> Figures:
        self.asked += 1
        if self.failure:
            raise self.failure
        return FIGURES

    def set(self, settings: MetricsSettings) -> None:
        self.settings = settings
        self.sampler.wake()


@asynccontextmanager
async def running(settings: MetricsSettings) -> AsyncIterator[Host]:
    host = Host(settings)
    task = asyncio.create_task(host.sampler.run())
    try:
        yield host
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_textfile_while_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "logindguard.prom"
    async with running(MetricsSettings(textfile=str(path), interval_usec=10_000, sample_usec=0)) as host:
        await until(lambda: host.asked >= 3)  # the figures: the first two texts are written then
        assert "logindguard_dying_memcgs 3\n" in path.read_text()
    assert not path.exists()
    assert host.samples == []


async def test_no_textfile_is_left_by_an_end_amid_a_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "logindguard.prom"
    begun, ends = threading.Event(), threading.Event()

    def slow(path: Path, text: str) -> None:
        begun.set()
        ends.wait(DEADLINE_SEC)
        replace_text(path, text)

    monkeypatch.setattr("logindguard.sampler.replace_text", slow)
    async with running(MetricsSettings(textfile=str(path), sample_usec=0)) as host:
        await until(begun.is_set)
        asyncio.get_running_loop().call_later(0.05, ends.set)
    assert host.asked == 1
    assert not path.exists()


async def test_samples_when_they_are_due() -> None:
    async with running(MetricsSettings(sample_usec=20_000)) as host:
        await until(lambda: len(host.samples) >= 2)
    first, second = host.samples[:2]
    assert second.realtime_usec >= first.realtime_usec + 20_000
    assert (first.mode, first.dying, first.residue_bytes) == (Mode.OBSERVE, 3, 4097)
    assert (first.teardowns_total, first.freed_bytes_total) == (7, 8192)


async def test_nothing_is_read_where_nothing_is_asked_for() -> None:
    async with running(OFF) as host:
        host.sampler.wake()
        await asyncio.sleep(0.05)
    assert host.asked == 0


async def test_settings_may_change(tmp_path: Path) -> None:
    one, other = tmp_path / "one.prom", tmp_path / "other.prom"
    async with running(OFF) as host:
        host.set(MetricsSettings(textfile=str(one), sample_usec=0))
        await until(one.exists)
        host.set(MetricsSettings(textfile=str(other), sample_usec=0))
        await until(other.exists)
        assert not one.exists()
        host.set(OFF)
        await until(lambda: not other.exists())


async def test_a_failure_is_told_once_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "missing" / "logindguard.prom"
    async with running(MetricsSettings(textfile=str(path), interval_usec=5_000, sample_usec=0)) as host:
        await until(lambda: host.asked >= 3)
        assert [each.getMessage() for each in caplog.records] == [
            f"Metrics cannot be told: {path}: No such file or directory."
        ]
        host.failure = CgroupGone("/user.slice")
        await until(lambda: len(caplog.records) == 2)
        host.failure = None
        path.parent.mkdir()
        await until(path.exists)


async def test_a_textfile_that_cannot_be_written_costs_no_sample(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing" / "logindguard.prom")
    async with running(MetricsSettings(textfile=missing, sample_usec=20_000)) as host:
        await until(lambda: bool(host.samples))
    assert host.samples[0].dying == 3


async def test_what_the_kernel_refuses_is_not_blamed_on_the_textfile(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(MetricsSettings(textfile=str(tmp_path / "x.prom"), sample_usec=0)) as host:
        await until((tmp_path / "x.prom").exists)
        host.failure = PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/proc/meminfo")
        host.sampler.wake()
        await until(lambda: bool(caplog.records))
    assert caplog.records[0].getMessage() == (
        "Metrics cannot be told: [Errno 13] Permission denied: '/proc/meminfo'."
    )


async def test_what_to_do_where_the_unit_may_not_write(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, text: str) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr("logindguard.sampler.replace_text", refused)
    async with running(MetricsSettings(textfile="/var/lib/x.prom", sample_usec=0)):
        await until(lambda: bool(caplog.records))
    assert caplog.records[0].getMessage() == (
        "Metrics cannot be told: /var/lib/x.prom: Read-only file system: "
        "restart the service where the directory is new, or add it to ReadWritePaths=."
    )


def test_replaced_whole_and_readable_by_all(tmp_path: Path) -> None:
    path = tmp_path / "x.prom"
    path.write_text("old")
    (tmp_path / ".x.prom.new").symlink_to(tmp_path / "elsewhere")
    held = path.open()
    before = os.umask(0o077)
    try:
        replace_text(path, "new\n")
    finally:
        os.umask(before)
    assert held.read() == "old"
    held.close()
    assert path.read_text() == "new\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [each.name for each in tmp_path.iterdir()] == ["x.prom"]


def test_how_long_something_was_the_case() -> None:
    watch = Stopwatch()
    watch.note(10, on=False)
    watch.note(20, on=True)
    watch.note(25, on=True)
    assert watch.total_usec(30) == 10
    watch.note(40, on=False)
    assert watch.total_usec(100) == 20
