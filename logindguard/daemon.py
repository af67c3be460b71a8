"""Composition root: the command line, the service's life, and who is wired to whom."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from . import policy
from .climb import Climb
from .config_file import DEFAULT_DROPINS, DEFAULT_FILE, ConfigError, Loaded, load
from .control import Control
from .dbus.api import Api
from .dbus.root_api import RootApi
from .guard import Guard
from .hook import Hook
from .kernel.backend import Backend
from .kernel.cgroupfs import CgroupGone, Hierarchy, KernelError, detect
from .kernel.choose import choose
from .kernel.idle import make_this_thread_idle, warn_unless_idle
from .kernel.ledger import Ledger, LedgerError
from .kernel.nudge import Nudge
from .kernel.shield import restore
from .kernel.warm import warm
from .model import Decision, ReclaimRecord, Teardown
from .notify import Notifier
from .options import parse
from .pause import Pause
from .reclaimer import Reclaimer
from .record.journal import Journal, setup_logging
from .record.log import managed
from .record.repeats import EACH_TIME
from .sampler import Sampler
from .signals.cgroup_watch import CgroupWatch
from .signals.listener import Listener
from .signals.part import keep_working
from .signals.registry import Registry
from .sweep import Sweep

TELL_SEC = 2.0  # for windows that are open to end, and their records
STOP_AGAIN_SEC = 1.0
IDLE_WITHIN_SEC = 30.0  # ExecStartPost= runs after READY, and a busy host takes its time
HELPERS = 4  # threads for short looks at the kernel: as many as asyncio has by itself is over TasksMax=
# How long a thread that comes back from the kernel waits for one that computes. Python's 5 ms, after each
# read, would add up to more than the hook of a logout waits for, while some user floods us with calls.
SWITCH_SEC = 0.0005
PARTIAL_TREE = (
    "Only a part of the machine's cgroups is seen here, as in a container: the others are left to the guard"
    " of the host, which sees these too."
)

log = logging.getLogger(__name__)


class Fatal(Exception):
    """Ends the program with one sentence and an exit status of sysexits(3)."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Daemon:
    """One run of the service, from READY to its end."""

    def __init__(self, options: argparse.Namespace, settings: Loaded, backend: Backend, nudge: Nudge) -> None:
        self._options = options
        self._settings = settings
        self._backend = backend
        self._notifier = Notifier()
        self._journal = _journal(options)
        self._prompt = ThreadPoolExecutor(1, "prompt")
        self._idle = ThreadPoolExecutor(1, "idle", make_this_thread_idle)
        self._pause = Pause(options.runtime_directory, self._pause_changed)
        self._reclaimer = Reclaimer(
            backend, settings.config, prompt=self._prompt, idle=self._idle, held=lambda: self._pause.reason
        )
        self._registry = Registry(self._covers, self._heard)
        self._guard = Guard(
            self._reclaimer, tell=self._tell, leave=self._leave, lives_on=self._registry.lives_on
        )
        self._watch = CgroupWatch(backend.hierarchy.mount, settings.config.roots, self._registry)
        hook = Hook(
            self._reclaimer, self._guard.endings, self._registry, config=lambda: self._settings.config
        )
        self._listener = Listener(
            options.bus_address,
            self._registry,
            backend.hierarchy.inode_of,
            tell=self._journal.sources,
            serve=lambda bus: RootApi(bus, self._control, hook.reclaim),
        )
        self._sweep = Sweep(
            self._reclaimer,
            tell=self._tell,
            tell_paused=self._tell_paused,
            tell_forecast=self._journal.forecast,
            free=self._guard.free,
            rescan=self._watch.catch_up,
            climb=Climb(self._reclaimer, nudge=nudge, offline_usec=lambda: self._guard.heard_usec),
            held=lambda: self._control.harm,
        )
        self._control = Control(
            self._reclaimer,
            self._guard,
            self._sweep,
            self._pause,
            directory=options.runtime_directory,
            roots=settings.config.roots,
            reload=self._reload,
            config_files=lambda: self._settings.files,
        )
        self._sampler = Sampler(
            self._control.figures, lambda: self._settings.config.metrics, tell=self._journal.sample
        )

    def _covers(self, unit: str) -> bool:
        return policy.covers(unit, self._settings.config.units)

    def _heard(self, teardown: Teardown) -> None:
        self._control.heard(teardown)
        self._guard.heard(teardown)

    def _leave(self, record: ReclaimRecord, decision: Decision) -> None:
        self._sweep.leave(record, decision)

    def _tell(self, record: ReclaimRecord) -> None:
        self._journal.record(record)
        self._control.book(record)
        self._status()

    def _tell_paused(self, reason: str) -> None:
        self._journal.paused(reason)
        self._control.pause_changed()
        self._status()

    def _pause_changed(self) -> None:
        self._journal.held(self._pause.details)
        if not self._pause.reason:
            self._sweep.again()
        self._control.pause_changed()
        self._status()

    def _status(self) -> None:
        held = self._pause.reason
        paused = (
            f"; {held}" if held else f"; sweep paused: {self._sweep.paused}" if self._sweep.paused else ""
        )
        self._notifier.status(
            f"{self._backend.mode}: {self._guard.teardowns_total} teardowns, {self._control.totals}{paused}"
        )

    async def run(self) -> None:
        """Serve until a signal or a fault ends it. Raises Fatal."""
        ended: asyncio.Future[Fatal | None] = asyncio.get_running_loop().create_future()

        def end(fatal: Fatal | None) -> None:
            if not ended.done():
                ended.set_result(fatal)

        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(HELPERS, "helper"))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end, None)
        loop.add_signal_handler(signal.SIGHUP, self._hung_up)
        try:
            await self._watch.start()
        except OSError as error:
            hint = " (see fs.inotify.max_user_instances)" if error.errno == errno.EMFILE else ""
            raise Fatal(f"The cgroup tree cannot be watched: {error.strerror}{hint}.", os.EX_OSERR) from error
        tasks = [
            _supervised(self._guard.run(), end),
            _supervised(self._sweep.run(), end),
            _supervised(self._pause.run(), end),
            _supervised(self._listener.run(), end),
            _supervised(keep_working(self._options.bus_address, lambda bus: Api(bus, self._control)), end),
            _supervised(self._notifier.watchdog(), end),
            _supervised(self._sampler.run(), end),
        ]
        self._journal.mode(self._backend.mode, self._backend.reason)
        if not self._backend.hierarchy.whole:
            log.warning(PARTIAL_TREE)
        if self._pause.reason:  # of a run before
            self._journal.held(self._pause.details)
        self._status()
        await self._reclaimer.call(int, idle=True)  # the thread is there for who makes it idle
        self._notifier.ready()
        look = loop.call_later(IDLE_WITHIN_SEC, self._idle.submit, warn_unless_idle)
        try:
            await self._reclaimer.call(warm, idle=True)
            fatal = await ended
        finally:
            look.cancel()
            self._notifier.stopping()
            self._guard.stop()
            self._sweep.stop()
            self._watch.stop()
            with contextlib.suppress(TimeoutError):  # what was reclaimed is told
                async with asyncio.timeout(TELL_SEC):
                    await self._guard.free.wait()
            self._guard.endings.cancel()
            left = set(tasks)
            while left:  # once is not enough for a library that swallows a cancellation
                for task in left:
                    task.cancel()
                _, left = await asyncio.wait(left, timeout=STOP_AGAIN_SEC)
            await self._control.stop()
            # The window that is open ends after its current write, with everything put back.
            await asyncio.to_thread(self._prompt.shutdown)
            await asyncio.to_thread(self._idle.shutdown)
        if fatal is not None:
            raise fatal

    def _hung_up(self) -> None:
        with contextlib.suppress(ConfigError):  # it has been told
            self._reload()

    def _reload(self) -> None:
        """Raises ConfigError with the old settings in force."""
        self._notifier.reloading()
        try:
            new = _load(self._options)
        except ConfigError as error:
            self._journal.config_error(error)
            raise
        else:
            if new.config.roots != self._settings.config.roots:
                log.warning("A change of roots takes effect at the next start.", extra=EACH_TIME)
            if new.config.units != self._settings.config.units:
                self._watch.list_again()
            self._settings, self._reclaimer.config = new, new.config
            logging.getLogger().setLevel(new.config.log_level.upper())
            self._sweep.wake()
            self._control.settings_changed()
            self._sampler.wake()
            log.info("Settings were read again.", extra=EACH_TIME)
        finally:
            self._notifier.ready()


def _supervised(work: Coroutine[Any, Any, None], end: Callable[[Fatal | None], None]) -> asyncio.Task[None]:
    """A task whose failure ends the program instead of going unnoticed."""
    task = asyncio.create_task(work)

    def done(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            if not isinstance(error, Fatal):
                log.error("A part of the program failed.", exc_info=error)
            end(error if isinstance(error, Fatal) else Fatal(f"Internal error: {error!r}", os.EX_SOFTWARE))

    task.add_done_callback(done)
    return task


def _journal(options: argparse.Namespace) -> Journal:
    """For a service the journal, for a person the terminal; asked for, JSON for a program as well."""
    return Journal(wanted=managed(), json_lines=sys.stdout if options.json else None)


def _load(options: argparse.Namespace) -> Loaded:
    """The default file with its drop-ins, or the named file alone."""
    if options.config is None:
        return load(DEFAULT_FILE, DEFAULT_DROPINS)
    return load(options.config, None)


def _prepare(options: argparse.Namespace) -> tuple[Hierarchy, Ledger]:
    if os.geteuid() != 0:
        raise Fatal("Must be run as root: cgroups of other users are read and written.", os.EX_NOPERM)
    hierarchy = detect()
    if hierarchy is None:
        raise Fatal("No cgroup hierarchy with the memory controller is mounted.", os.EX_UNAVAILABLE)
    ledger = Ledger(options.runtime_directory)
    try:
        ledger.prepare()
    except LedgerError as error:
        raise Fatal(f"The ledger cannot be kept: {error}.", os.EX_CANTCREAT) from error
    return hierarchy, ledger


def _restore(hierarchy: Hierarchy, ledger: Ledger, journal: Journal) -> None:
    try:
        restored = restore(hierarchy, ledger)
    except LedgerError as error:
        raise Fatal(f"memory.min was not put back: {error}.", os.EX_OSERR) from error
    if restored.total:
        journal.restored(str(restored))


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0, or one of sysexits(3) with a sentence on stderr or in the journal."""
    options = parse(sys.argv[1:] if argv is None else argv)
    sys.setswitchinterval(SWITCH_SEC)
    setup_logging("info")
    if options.restore and detect() is None:
        return os.EX_OK  # no memory.min anywhere; whoever started it has been told so
    try:
        hierarchy, ledger = _prepare(options)
        # Before the settings are read: it must work whatever they say.
        _restore(hierarchy, ledger, _journal(options))
        nudge = Nudge(hierarchy)
        if options.restore:
            nudge.undo()
            return os.EX_OK
        try:
            settings = _load(options)
            logging.getLogger().setLevel(settings.config.log_level.upper())
            for root in settings.config.roots:
                hierarchy.open(root).close()
            backend = choose(hierarchy, ledger, settings.config.roots)
        except CgroupGone as error:
            raise Fatal(
                f"The settings name {error.path} in roots, and there is no such cgroup.", os.EX_CONFIG
            ) from error
        except ConfigError as error:
            raise Fatal(str(error), os.EX_CONFIG) from error
        except KernelError as error:
            raise Fatal(f"A root cannot be opened: {error}.", os.EX_CONFIG) from error
        with contextlib.suppress(KeyboardInterrupt):
            nudge.prepare()
            asyncio.run(Daemon(options, settings, backend, nudge).run())
    except Fatal as fatal:
        log.critical("%s", fatal)
        return fatal.status
    return os.EX_OK
