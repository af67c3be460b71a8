"""A kernel that fails: errors and strange answers from single control files, below the seam's own calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DIRECTORY = "a cgroup's directory"


@dataclass
class Faults:
    """Of calls on files named `file`: those that `strikes` says of their count, from 1 on."""

    file: str
    error: int = 0  # errno of `call`
    call: str = "open"  # or "read", "write", "scandir"
    answer: Callable[[bytes], bytes] | None = None  # what reading gives instead
    strikes: Callable[[int], bool] = lambda count: True
    count: int = 0
    struck: int = 0
    _open: dict[int, bytes | None] = field(default_factory=dict)  # what is still to be read, by descriptor

    def hit(self, call: str) -> bool:
        if call != self.call:
            return False
        self.count += 1
        struck = self.strikes(self.count)
        self.struck += struck
        return struck

    def fail(self) -> None:
        raise OSError(self.error, os.strerror(self.error))


@contextmanager
def failing(faults: Faults) -> Iterator[None]:
    """Meanwhile os.open() and what follows fail for calls relative to a directory, as the seam makes them."""
    plain: dict[str, Any] = {
        name: getattr(os, name) for name in ("open", "read", "write", "close", "scandir")
    }

    def concerns(path: Any, flags: int) -> bool:
        name = DIRECTORY if flags & os.O_DIRECTORY else Path(path).name
        return bool(name == faults.file)

    def open_(path: Any, flags: int, *more: Any, **options: Any) -> int:
        ours = concerns(path, flags)
        if ours and faults.error and faults.hit("open"):
            faults.fail()
        fd: int = plain["open"](path, flags, *more, **options)
        if ours:
            faults._open[fd] = None
        return fd

    def read(fd: int, size: int) -> bytes:
        data: bytes
        if fd not in faults._open:
            data = plain["read"](fd, size)
            return data
        if faults.error and faults.hit("read"):
            faults.fail()
        if faults.answer is None:
            data = plain["read"](fd, size)
            return data
        if faults._open[fd] is None:
            faults.struck += 1
            faults._open[fd] = faults.answer(plain["read"](fd, 1 << 20))
        left = faults._open[fd] or b""
        data, faults._open[fd] = left[:7], left[7:]  # short reads, whatever was asked
        return data

    def write(fd: int, data: Any) -> int:
        if fd in faults._open and faults.hit("write"):
            faults.fail()
        count: int = plain["write"](fd, data)
        return count

    def scandir(path: Any) -> Any:
        if faults.file == DIRECTORY and faults.hit("scandir"):
            faults.fail()
        return plain["scandir"](path)

    def close(fd: int) -> None:
        faults._open.pop(fd, None)
        plain["close"](fd)

    fakes = {"open": open_, "read": read, "write": write, "scandir": scandir, "close": close}
    try:
        for name, fake in fakes.items():
            setattr(os, name, fake)
        yield
    finally:
        for name, function in plain.items():
            setattr(os, name, function)
