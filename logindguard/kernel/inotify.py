"""inotify, by its system calls.

Hard facts (inotify(7), fs/notify/inotify; those on kernfs measured on 6.18):

- A watch belongs to an inode. Events name the watch descriptor (wd) and the
  child, never a path: the caller keeps the map. Adding a watch to an inode that
  has one gives the same wd back, with the new mask in place of the old one.
- The kernel hands out wd numbers in rising order and starts again only after
  2**31; a wd that was removed does not come back soon.
- mkdir and rmdir of a cgroup are ordinary system calls on a directory, so
  IN_CREATE and IN_DELETE with IN_ISDIR arrive as on any file system, IN_DELETE
  when rmdir has done its work: the memcg is offline by then. What the kernel
  itself makes on kernfs (the control files) causes no events.
- On kernfs a removed directory gives neither IN_DELETE_SELF nor IN_IGNORED: its
  watch stays, and counts against the limit, until inotify_rm_watch. Such a watch
  pins the directory's inode but not the memcg, and does not delay the rmdir.
- The queue holds fs.inotify.max_queued_events (16,384). What comes after that is
  lost; one event with IN_Q_OVERFLOW and wd -1 says so.
- ENOSPC from inotify_add_watch means fs.inotify.max_user_watches, which all
  programs of one user share.
- Nothing is watched recursively: a directory made inside a new directory before
  its watch stands is found only by listing it afterwards.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import NamedTuple

# include/uapi/linux/inotify.h
IN_CREATE = 0x0000_0100
IN_DELETE = 0x0000_0200
IN_Q_OVERFLOW = 0x0000_4000
IN_IGNORED = 0x0000_8000
IN_ONLYDIR = 0x0100_0000
IN_ISDIR = 0x4000_0000

_HEADER = struct.Struct("iIII")  # wd, mask, cookie, length of the padded name
_READ_BYTES = 16 * 1024  # some 300 events: a bounded piece of work for the caller

_libc = ctypes.CDLL(None, use_errno=True)
_libc.inotify_init1.argtypes = [ctypes.c_int]
_libc.inotify_add_watch.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]
_libc.inotify_rm_watch.argtypes = [ctypes.c_int, ctypes.c_int]


class Event(NamedTuple):
    wd: int  # -1 for IN_Q_OVERFLOW
    mask: int
    name: str  # of the child; "" for events of the queue or of the watch itself


class Inotify:
    """One inotify instance, non-blocking and closed on exec."""

    def __init__(self) -> None:
        """Raises OSError: EMFILE above fs.inotify.max_user_instances."""
        self.fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def add(self, path: str, mask: int) -> int:
        """The wd of the watch on `path`; OSError ENOENT (gone), ENOTDIR, ENOSPC (watch limit)."""
        return _checked(_libc.inotify_add_watch(self.fd, os.fsencode(path), mask), path)

    def remove(self, wd: int) -> None:
        """Ends a watch; OSError EINVAL when the kernel has ended it before."""
        _checked(_libc.inotify_rm_watch(self.fd, wd))

    def read(self) -> list[Event]:
        """Some of the queued events, in order; an empty list when there are none."""
        try:
            data = os.read(self.fd, _READ_BYTES)
        except BlockingIOError:
            return []
        events = []
        offset = 0
        while offset < len(data):
            wd, mask, _, length = _HEADER.unpack_from(data, offset)
            offset += _HEADER.size
            name = data[offset : offset + length].rstrip(b"\0")
            offset += length
            events.append(Event(wd, mask, os.fsdecode(name)))
        return events

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _checked(result: int, path: str | None = None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result
