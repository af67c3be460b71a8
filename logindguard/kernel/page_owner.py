"""How much of an open file's page cache is charged to a cgroup, or to what hangs dying under it.

Hard facts (mincore(2), proc_pid_pagemap(5), Documentation/admin-guide/mm/pagemap.rst; fs/proc/page.c):

- /proc/kpagecgroup has, for each page frame, the inode of the cgroup that it is charged to, or of the
  nearest ancestor that is still online: what is charged to dying memcgs shows as their live parent's.
- mincore says which pages of a mapping are in the page cache, and reads none. A page frame number is
  told only of a page that our own page table has, so what is cached is touched: a minor fault.
- A page that is touched counts as used when it is unmapped, which would keep it longer: not where the
  mapping is read sequentially, since 6.3 (vma_has_recency) not where it is read at random either.
  At random nothing is read ahead, so that is taken where it serves.
- A file that became shorter meanwhile is SIGBUS for who reads the mapping by itself, and EFAULT where
  the kernel reads it: writev(2) into a pipe, one byte a page.
- A page that is moved in memory just then (compaction) has no frame for a moment.
- /proc/self/pagemap shows 0 for every frame to who lacks CAP_SYS_ADMIN.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from .cgroupfs import PAGE_BYTES
from .features import version_of

WINDOW_PAGES = 16_384  # mapped at a time: 64 MiB
_TOUCH_PAGES = 1_024  # IOV_MAX; what a pipe takes without being read
_TRIES = 3
_PRESENT = 1 << 63
_FRAME = (1 << 55) - 1
_ENTRY_BYTES = 8
_FIRST_RANDOM = (6, 3)
_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long),
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)


class NoPageOwners(Exception):
    """This kernel, or these rights, do not tell whose a page is; the sentence says which."""


class PageOwners:
    """A context manager over the two files of procfs. OSError where a file cannot be mapped."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        try:
            self._owners = os.open(proc / "kpagecgroup", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise NoPageOwners("This kernel has no /proc/kpagecgroup (CONFIG_PROC_PAGE_MONITOR).") from error
        except OSError as error:
            raise NoPageOwners(f"/proc/kpagecgroup cannot be read: {error.strerror}.") from error
        self._pagemap = os.open(proc / "self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        self._pipe = os.pipe()
        self._advice = (
            mmap.MADV_RANDOM if version_of(os.uname().release) >= _FIRST_RANDOM else mmap.MADV_SEQUENTIAL
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (self._owners, self._pagemap, *self._pipe):
            os.close(fd)

    def charged(
        self, fd: int, size_bytes: int, inode: int, should_stop: Callable[[], bool] = lambda: False
    ) -> tuple[int, int]:
        """Bytes of the file in the page cache, and those of them that are charged to the cgroup.

        What comes after `should_stop` said yes is not counted: a sparse file may have petabytes.
        """
        cached = charged = 0
        for offset in range(0, size_bytes, WINDOW_PAGES * PAGE_BYTES):
            if should_stop():
                break
            length = min(size_bytes - offset, WINDOW_PAGES * PAGE_BYTES)
            pages = -(-length // PAGE_BYTES)
            in_window, ours = self._window(fd, offset, pages, inode)
            cached += in_window
            charged += ours
        return cached * PAGE_BYTES, charged * PAGE_BYTES

    def _window(self, fd: int, offset: int, pages: int, inode: int) -> tuple[int, int]:
        length = pages * PAGE_BYTES
        address = _libc.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, fd, offset)
        if address == _FAILED:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        try:
            _libc.madvise(address, length, self._advice)
            resident = ctypes.create_string_buffer(pages)
            if _libc.mincore(address, length, resident):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            states = resident.raw
            if not states.strip(b"\0"):  # of most windows of a large file
                return 0, 0
            cached = [at for at, state in enumerate(states) if state & 1]
            frames: list[int] = []
            for _ in range(_TRIES):
                self._touch(address, length, cached)
                frames = sorted(self._frames(address, pages, cached))
                if len(frames) == len(cached):
                    break
            return len(cached), sum(self._count(first, count, inode) for first, count in _runs(frames))
        finally:
            _libc.munmap(address, length)

    def _touch(self, address: int, length: int, cached: list[int]) -> None:
        mapping = memoryview((ctypes.c_char * length).from_address(address)).cast("B")
        reader, writer = self._pipe
        for begin in range(0, len(cached), _TOUCH_PAGES):
            at_bytes = [at * PAGE_BYTES for at in cached[begin : begin + _TOUCH_PAGES]]
            try:
                written = os.writev(writer, [mapping[at : at + 1] for at in at_bytes])
            except OSError as error:
                if error.errno == errno.EFAULT:  # the file became shorter
                    return
                raise
            os.read(reader, written)
            if written < len(at_bytes):
                return

    def _frames(self, address: int, pages: int, cached: list[int]) -> Iterator[int]:
        entries = array("Q")
        entries.frombytes(os.pread(self._pagemap, pages * _ENTRY_BYTES, address // PAGE_BYTES * _ENTRY_BYTES))
        for at in cached:
            if at < len(entries) and entries[at] & _PRESENT:
                frame = entries[at] & _FRAME
                if frame == 0:
                    raise NoPageOwners("Page frame numbers are told only to root with CAP_SYS_ADMIN.")
                yield frame

    def _count(self, first: int, count: int, inode: int) -> int:
        owners = array("Q")
        owners.frombytes(os.pread(self._owners, count * _ENTRY_BYTES, first * _ENTRY_BYTES))
        return owners.count(inode)


def _runs(frames: list[int]) -> Iterator[tuple[int, int]]:
    """Consecutive numbers of a sorted list, as first and count."""
    begin = 0
    for at in range(1, len(frames) + 1):
        if at == len(frames) or frames[at] != frames[at - 1] + 1:
            if at > begin:
                yield frames[begin], at - begin
            begin = at
