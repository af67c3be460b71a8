"""When a sweep has to wait for the host: each sign has its hysteresis."""

from __future__ import annotations

from pathlib import Path

from logindguard.config import SEC, PressureSettings
from logindguard.kernel.pressure import Signs, read_signs
from logindguard.room import CPU_PATIENCE_USEC, Room

MIB = 1 << 20
SETTINGS = PressureSettings()


def seen(*signs: Signs, every_usec: int = 10 * SEC) -> list[str]:
    room = Room()
    return [
        waits(room, each, min_available_bytes=64 * MIB, now_usec=turn * every_usec).partition(" (")[0]
        for turn, each in enumerate(signs)
    ]


def waits(
    room: Room, signs: Signs, *, min_available_bytes: int = 0, now_usec: int = 0, asked: bool = False
) -> str:
    room.look(signs, SETTINGS, min_available_bytes, now_usec)
    return room.reason(asked=asked)


def test_memory_pressure() -> None:
    percents = (0.0, 9.9, 10.0, 7.0, 5.0, 4.9, 7.0, None)
    waits = "memory pressure"
    assert seen(*(Signs(memory_percent=percent) for percent in percents)) == [
        *("", "", waits, waits, waits, "", "", "")
    ]


def test_cpu_and_io_pressure() -> None:
    percents = (59.0, 60.0, 31.0, 30.0, 29.0, 59.0)
    cpu, io = "CPU pressure", "I/O pressure"
    assert seen(*(Signs(cpu_percent=each) for each in percents)) == ["", cpu, cpu, cpu, "", ""]
    assert seen(*(Signs(io_percent=each) for each in percents)) == ["", io, io, io, "", ""]


def test_cpus_that_are_always_taken_hold_it_up_for_a_while_only() -> None:
    room = Room()
    answers = []
    for minute, percent in enumerate((99.0, 31.0, 99.0, 99.0, 29.0, 99.0)):
        now_usec = minute * CPU_PATIENCE_USEC // 3
        reason = waits(room, Signs(cpu_percent=percent), now_usec=now_usec)
        answers.append((bool(reason), room.crowded))
    assert answers == [(True, True), (True, True), (True, True), (False, True), (False, False), (True, True)]


def test_cpus_that_are_taken_hold_up_nobody_who_asks() -> None:
    room = Room()
    assert waits(room, Signs(cpu_percent=99.0), asked=True) == ""
    assert room.crowded
    assert waits(room, Signs(cpu_percent=99.0, io_percent=99.0), asked=True) == "I/O pressure (99 % some)"


def test_little_available_memory() -> None:
    available = (64 * MIB, 64 * MIB - 1, 70 * MIB, 80 * MIB, 70 * MIB)
    waits = "little memory is available"
    assert seen(*(Signs(available_bytes=each) for each in available)) == ["", waits, waits, "", ""]


def test_swapping_by_its_rate() -> None:
    pages = (1_000_000, 1_000_000, 1_002_560, 1_002_960, 1_003_200, 1_003_600)
    waits = "pages are being swapped"
    # A second: 0, 256, 40 (still too many), 24, 40 (not enough to wait again).
    assert seen(*(Signs(swapped_pages=each) for each in pages)) == ["", "", waits, waits, "", ""]


def test_no_rate_from_two_readings_at_once() -> None:
    assert seen(Signs(swapped_pages=0), Signs(swapped_pages=9_999), every_usec=SEC - 1) == ["", ""]


def test_memory_comes_first_and_each_sign_is_kept_apart() -> None:
    busy = Signs(memory_percent=50.0, cpu_percent=99.0, io_percent=99.0)
    assert seen(
        busy, Signs(memory_percent=0.0, cpu_percent=31.0, io_percent=31.0), Signs(io_percent=31.0)
    ) == [*("memory pressure", "CPU pressure", "I/O pressure")]
    assert seen(busy, Signs()) == ["memory pressure", ""]


def test_the_words_have_the_figures() -> None:
    room = Room()
    assert waits(room, Signs(memory_percent=12.3)) == "memory pressure (12 % some)"
    room = Room()
    waits(room, Signs(swapped_pages=0))
    assert waits(room, Signs(swapped_pages=512), now_usec=SEC) == "pages are being swapped (2.0 MiB/s)"


def test_reading_the_signs(tmp_path: Path) -> None:
    (tmp_path / "pressure").mkdir()
    for resource, percent in (("memory", "1.00"), ("cpu", "2.00"), ("io", "3.00")):
        (tmp_path / "pressure" / resource).write_text(f"some avg10={percent} avg60=0 avg300=0 total=0\n")
    (tmp_path / "meminfo").write_text("MemFree: 1024 kB\nMemAvailable: 2048 kB\nSwapTotal: 0 kB\n")
    (tmp_path / "vmstat").write_text("pgpgin 9\npswpin 30\npswpout 12\n")
    assert read_signs(tmp_path) == Signs(
        memory_percent=1.0, cpu_percent=2.0, io_percent=3.0, available_bytes=2 * MIB, swapped_pages=42
    )


def test_a_kernel_that_says_nothing(tmp_path: Path) -> None:
    assert read_signs(tmp_path) == Signs()
