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
- Under the hardened unit both calls are refused, and `logindguard-idle` makes them from outside
  (ExecStartPost=): it finds the thread by its name, which is at most 15 bytes (proc_pid_comm(5)).
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import platform
import threading
import time
from pathlib import Path

_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "ppc64le": 273, "s390x": 282}
_IOPRIO_WHO_PROCESS = 1
_IOPRIO_CLASS_IDLE = 3 << 13
_NAME = "sweep"  # as logindguard-idle looks for it

log = logging.getLogger(__name__)


def make_this_thread_idle() -> None:
    """SCHED_IDLE and the idle I/O class, as far as we may set them; `warn_unless_idle` tells of the rest."""
    with contextlib.suppress(OSError):
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(_NAME)
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:  # else SCHED_IDLE alone: with CFQ-like schedulers it implies idle I/O
        ctypes.CDLL(None).syscall(number, _IOPRIO_WHO_PROCESS, 0, _IOPRIO_CLASS_IDLE)


def warn_unless_idle() -> None:
    """In the thread itself, once whoever started the service has had the time to make it idle."""
    if os.sched_getscheduler(0) != os.SCHED_IDLE:
        log.warning("The sweep's thread stays at normal priority: nothing was allowed to make it idle.")


def thread_cpu_usec() -> int:
    """CPU time of the calling thread, user and kernel."""
    return time.thread_time_ns() // 1000
