#!/usr/bin/python3
"""Tells who writes to which control file, for as long as its input is open.

    cgroup_writes.py [--mount DIR]

Prints "ready", then one line "PID FILE" for each write to a file of that cgroup file system,
through whatever mount.

Hard facts (fanotify(7), fs/kernfs/mount.c): a mark on a file system needs its statfs(2) to tell
an id, which kernfs does since 6.6; before, fanotify_mark() gives ENODEV. The id of the process is
that of its thread group. Events that say the same are merged while nobody reads them.

Standard library only: it is copied into machines and run there.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import select
import struct
import sys
from collections.abc import Iterator

AT_FDCWD = -100
FAN_CLOEXEC, FAN_REPORT_DFID_NAME = 0x1, 0x400 | 0x800
FAN_MARK_ADD, FAN_MARK_FILESYSTEM = 0x1, 0x100
FAN_MODIFY = 0x2
_EVENT = struct.Struct("=IBBHQii")  # struct fanotify_event_metadata
_INFO = struct.Struct("=BBH8xIi")  # struct fanotify_event_info_fid with the head of its file_handle
_READ_BYTES = 1 << 16


def mark(mount: str) -> int:
    """A descriptor to read from; raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.fanotify_init(FAN_CLOEXEC | FAN_REPORT_DFID_NAME, os.O_RDONLY)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "fanotify_init")
    what = ctypes.c_uint64(FAN_MODIFY)
    if libc.fanotify_mark(fd, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, what, AT_FDCWD, mount.encode()) < 0:
        raise OSError(ctypes.get_errno(), "fanotify_mark")
    return fd


def events(data: bytes) -> Iterator[tuple[int, str]]:
    """Process and name of the file, of each event in what one read gave."""
    while data:
        length, _, _, head, _, _, pid = _EVENT.unpack_from(data)
        _, _, info_length, handle_bytes, _ = _INFO.unpack_from(data, head)
        name = data[head + _INFO.size + handle_bytes : head + info_length].split(b"\0", 1)[0]
        yield pid, name.decode()
        data = data[length:]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--mount", default="/sys/fs/cgroup")
    fd = mark(parser.parse_args().mount)
    print("ready", flush=True)
    while True:
        readable, _, _ = select.select([fd, sys.stdin], [], [])
        if fd in readable:
            for pid, name in events(os.read(fd, _READ_BYTES)):
                print(pid, name)
        elif not sys.stdin.read():
            return 0


if __name__ == "__main__":
    sys.exit(main())
