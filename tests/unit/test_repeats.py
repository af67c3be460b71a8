"""One line for each cause and hour."""

from __future__ import annotations

import logging

from logindguard.record.repeats import EACH_TIME, HOUR_SEC, MAX_KNOWN, MAX_OF_A_KIND, OncePerHour, Repeats


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_once_in_an_hour() -> None:
    clock = Clock()
    repeats = Repeats(clock)
    assert [repeats.told("a", "x"), repeats.told("a", "x"), repeats.told("a", "y")] == [False, True, False]
    clock.now = HOUR_SEC - 1
    assert repeats.told("a", "x")
    clock.now = HOUR_SEC
    assert not repeats.told("a", "x")


def test_no_kind_has_more_than_its_share() -> None:
    repeats = Repeats(Clock())
    told = [repeats.told("a", str(number)) for number in range(1000)]
    assert told.count(False) == MAX_OF_A_KIND
    assert not repeats.told("b", "0")


def test_memory_is_bounded() -> None:
    repeats = Repeats(Clock())
    for number in range(3 * MAX_KNOWN):
        repeats.told(str(number), "")
    assert len(repeats._told) <= MAX_KNOWN + 1


def lines(filter_: OncePerHour, level: int, *messages: str, **extra: object) -> int:
    """How many of them pass."""
    logger = logging.Logger("a")
    handler = logging.Handler()
    passed: list[str] = []
    handler.emit = lambda record: passed.append(record.getMessage())  # type: ignore[method-assign]
    handler.addFilter(filter_)
    logger.addHandler(handler)
    for message in messages:
        logger.log(level, "%s", message, extra=extra)
    return len(passed)


def test_lines() -> None:
    assert lines(OncePerHour(Clock()), logging.WARNING, "a", "a", "b") == 2
    assert lines(OncePerHour(Clock()), logging.INFO, "a", "a", "b") == 2
    assert lines(OncePerHour(Clock()), logging.INFO, "a", "a", "b", **EACH_TIME) == 3
    assert lines(OncePerHour(Clock()), logging.DEBUG, "a", "a") == 2
    assert lines(OncePerHour(Clock()), logging.CRITICAL, "a", "a") == 2
    assert lines(OncePerHour(Clock()), logging.WARNING, *map(str, range(1000))) == MAX_OF_A_KIND


def test_another_error_is_another_cause() -> None:
    filter_ = OncePerHour(Clock())
    passed = 0
    for error in (OSError(5, "a"), OSError(5, "a"), OSError(6, "b")):
        record = logging.LogRecord("a", logging.ERROR, "f", 1, "Failed.", None, (OSError, error, None))
        passed += bool(filter_.filter(record))
    assert passed == 2
