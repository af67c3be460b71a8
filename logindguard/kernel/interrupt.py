"""A write(2) that a timer interrupts, for control files that work until a signal is pending.

Hard facts (timer_create(2), signal(7), PEP 475; kernel/time/posix-timers.c):

- A write to a control file returns EINTR only for a signal that has a handler: what is ignored
  by default never becomes pending. Without SA_RESTART, which signal.signal() leaves out, the
  kernel does not begin the write again.
- os.write() does begin it again after EINTR (PEP 475). libc's write() through ctypes does not, and
  it releases the GIL too.
- Python installs handlers only from the main thread, and runs them there: the one here does
  nothing. The C part runs in whichever thread the signal hit; where asyncio has set a wakeup fd,
  it writes one byte there, and the loop ignores signals that it has no handler for.
- SIGEV_THREAD_ID sends the signal to one thread. glibc shows the field under no portable name:
  it is the int behind `sigev_notify` (bits/types/sigevent_t.h).
- A thread inherits its creator's signal mask; a blocked signal stays pending and interrupts nothing.
- The timer may expire before the write has begun. So it goes on until it is deleted, but not so
  fast that the thread would do nothing else than take its signals.
- A timer of the thread's CPU time would be no help: since 5.12 its signal is sent on the way back to
  user mode (CONFIG_POSIX_CPU_TIMERS_TASK_WORK), which is where the write would be over anyhow.
- A timer takes one of RLIMIT_SIGPENDING; none left is EAGAIN at timer_create.
- Nothing here makes a ctypes callback, which MemoryDenyWriteExecute= could refuse. timer_* is part
  of systemd's @system-service, through @timer.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNAL = signal.SIGRTMIN + 7  # nothing in Python, glibc or Debian sends it to a service
MIN_INTERVAL_USEC = 1_000
_SIGEV_THREAD_ID = 4


class _SigEvent(ctypes.Structure):
    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("thread_id", ctypes.c_int),
        ("rest", ctypes.c_char * 64),  # at least what glibc pads it to
    )


class _TimeSpec(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_long), ("nsec", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("first", _TimeSpec))


def _span(duration_usec: int) -> _TimeSpec:
    return _TimeSpec(*divmod(max(1, duration_usec) * 1000, 1_000_000_000))


def _ignore(number: int, frame: FrameType | None) -> None:
    """Its being there is what makes a write end with EINTR."""


class Interrupter:
    """Owns the signal's handler; make it in the main thread, then write from any."""

    def __init__(self) -> None:
        """Raises RuntimeError outside the main thread, and where the signal is in use already."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("The signal that interrupts writes can be handled only by the main thread.")
        if signal.getsignal(SIGNAL) not in (signal.SIG_DFL, signal.SIG_IGN, _ignore):
            raise RuntimeError(f"Signal {SIGNAL} is in use: writes cannot be interrupted by it.")
        signal.signal(SIGNAL, _ignore)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.write.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)
        self._libc.write.restype = ctypes.c_ssize_t
        self._libc.timer_settime.argtypes = (
            *(ctypes.c_void_p, ctypes.c_int),
            *(ctypes.POINTER(_TimerSpec), ctypes.c_void_p),
        )
        self._libc.timer_delete.argtypes = (ctypes.c_void_p,)

    def write(self, fd: int, data: bytes, after_usec: int) -> bool:
        """Whether one write(2) of `data` came to its end before the timer did. Raises OSError."""
        with self._timer(after_usec):
            if self._libc.write(fd, data, len(data)) >= 0:
                return True
            number = ctypes.get_errno()
        if number == errno.EINTR:
            return False
        raise OSError(number, os.strerror(number))

    @contextmanager
    def _timer(self, after_usec: int) -> Iterator[None]:
        """Sends the signal to the calling thread after that time, again and again until the block ends."""
        event = _SigEvent(signo=SIGNAL, notify=_SIGEV_THREAD_ID, thread_id=threading.get_native_id())
        timer = ctypes.c_void_p()
        self._check(
            self._libc.timer_create(time.CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)),
            "timer_create",
        )
        try:
            mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, {SIGNAL})
            try:
                times = _TimerSpec(
                    interval=_span(max(after_usec, MIN_INTERVAL_USEC)), first=_span(after_usec)
                )
                self._check(self._libc.timer_settime(timer, 0, ctypes.byref(times), None), "timer_settime")
                yield
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        finally:
            self._libc.timer_delete(timer)

    def _check(self, result: int, call: str) -> None:
        if result != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{call}: {os.strerror(number)}")
