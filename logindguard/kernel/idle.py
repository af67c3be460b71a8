"""Idle priority for one thread, and the CPU time that it used.

Hard facts:

- On Linux a process id given to sched_setscheduler(2) and ioprio_set(2) is a
  thread id; 0 is the calling thread. So one thread can be idle while the event
  loop and the teardown worker stay prompt.
- SCHED_IDLE is left behind by anything else on the CPU. A writer that waits for
  the CPU inside the kernel keeps its kernfs active reference, so an idle writer
  may only write to cgroups that nobody removes (user.slice, system.slice).
- Leaving SCHED_IDLE again needs RLIMIT_NICE or CAP_SYS_NICE; we never leave.
- glibc has no wrapper for ioprio_set; the numbers are from linux/ioprio.h.
"""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import time

_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "ppc64le": 273, "s390x": 282}
_IOPRIO_WHO_PROCESS = 1
_IOPRIO_CLASS_IDLE = 3 << 13

log = logging.getLogger(__name__)


def make_this_thread_idle() -> None:
    """SCHED_IDLE and the idle I/O class; what the kernel refuses is logged, not fatal."""
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except OSError as error:
        log.warning("The sweep's thread stays at normal priority: %s.", error.strerror)
    number = _IOPRIO_SET.get(platform.machine())
    if number is None:
        return  # SCHED_IDLE alone: with CFQ-like schedulers it implies idle I/O
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, _IOPRIO_WHO_PROCESS, 0, _IOPRIO_CLASS_IDLE) != 0:
        log.warning("The sweep's thread keeps its I/O class: %s.", os.strerror(ctypes.get_errno()))


def thread_cpu_usec() -> int:
    """CPU time of the calling thread, user and kernel."""
    return time.thread_time_ns() // 1000
