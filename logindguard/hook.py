"""What the hook at the end of a session asks for: reclaim the cgroup that I am in, it is ending.

The hook is a shell, `timeout` below it and `dbus-send` below that, started in the cgroup that ends
by the session's leader, which calls PAM, or by the service manager. Which cgroup that is, the
kernel says of the process that the bus daemon saw connecting; the call itself has no arguments.
That it is really ending is seen by who else is there: nobody.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from enum import Enum

from .config import Config
from .dbus.callers import Caller
from .dbus.names import CallError, Error
from .ending import Busy, Endings
from .kernel.cgroupfs import CgroupGone, KernelError
from .kernel.processes import NoProcess, Scene, look
from .model import Source, Teardown
from .reclaimer import Reclaimer, now_usec
from .signals.registry import Registry

HOOK_PROCESSES = 3
POLL_SEC = 0.005  # for a child of the leader that is about to exit

log = logging.getLogger(__name__)

_SESSION = re.compile(r"session-[^/]+\.scope")


class Standing(Enum):
    """How far a cgroup is on its way to the end."""

    ENDING = "ending"
    SOON = "soon"  # but for children of who ends it, which it will have waited for
    LIVE = "live"


def standing(scene: Scene) -> Standing:
    """Whether only the hook is left in the cgroup, and who called it. Pure.

    `su`, `sudo -i` and whatever else uses PAM inside a session is not its leader: then the
    session's own processes are there too. What a user left behind in the background keeps
    the cgroup as well, and keeps it live.
    """
    hook = [scene.pid]
    while len(hook) < HOOK_PROCESSES and (above := scene.parents.get(hook[-1], 0)) in scene.parents:
        hook.append(above)
    if len(hook) < HOOK_PROCESSES:
        return Standing.LIVE
    closer = scene.parents[hook[-1]]  # the service manager is not in the cgroup
    others = scene.parents.keys() - {*hook, closer}
    if not others:
        return Standing.ENDING
    soon = closer in scene.parents and all(scene.parents[other] == closer for other in others)
    return Standing.SOON if soon else Standing.LIVE


class Hook:
    """Serves the calls of the hook; `config` is asked anew each time."""

    def __init__(
        self, reclaimer: Reclaimer, endings: Endings, registry: Registry, config: Callable[[], Config]
    ) -> None:
        self._reclaimer = reclaimer
        self._endings = endings
        self._registry = registry
        self._config = config

    async def reclaim(self, caller: Caller) -> str:
        """How the reclaim of the caller's own cgroup ended, an Outcome. Raises CallError."""
        if not caller.is_root:
            raise CallError(Error.ACCESS_DENIED, "Only root ends sessions.")
        try:
            return await self._reclaim(caller)
        except CallError as error:
            log.debug("The hook with process %d was refused: %s", caller.pid, error)
            raise
        except asyncio.CancelledError:
            log.debug("The hook with process %d did not wait for the answer.", caller.pid)
            raise

    async def _reclaim(self, caller: Caller) -> str:
        heard_usec = now_usec()
        deadline_usec = heard_usec + self._config().teardown.hook_deadline_usec
        try:
            scene = await self._settled(caller.pid, deadline_usec)
        except (NoProcess, CgroupGone) as error:
            raise CallError(Error.NOT_ENDING, "The cgroup of the caller has ended already.") from error
        except KernelError as error:
            raise CallError(
                Error.FAILED, f"The kernel does not tell who is in the cgroup: {error}."
            ) from error
        # The process of that number was the caller all the time, if its connection is still there.
        if not await caller.is_there():
            raise CallError(Error.NOT_ENDING, "The caller has ended already.")
        teardown = await self._teardown(scene, heard_usec)
        try:
            record = await self._endings.serve_hook(teardown, deadline_usec)
        except Busy as error:
            raise CallError(Error.BUSY, "Another cgroup is being reclaimed just now.") from error
        return record.outcome.value

    async def _settled(self, pid: int, deadline_usec: int) -> Scene:
        """The cgroup of the process, once nobody else is in it. CallError when that does not come soon."""
        while True:
            scene = await asyncio.to_thread(look, pid, self._reclaimer.backend.hierarchy)
            match standing(scene):
                case Standing.ENDING:
                    return scene
                case Standing.SOON if now_usec() < deadline_usec:
                    await asyncio.sleep(POLL_SEC)
                case _:
                    raise CallError(
                        Error.NOT_ENDING, "Other processes are still in the cgroup of the caller."
                    )

    async def _teardown(self, scene: Scene, heard_usec: int) -> Teardown:
        unit = scene.path.rpartition("/")[2]
        source = Source.PAM if _SESSION.fullmatch(unit) else Source.STOP_POST
        teardown = self._registry.ending_at(scene.path, scene.inode, source, heard_usec)
        if teardown is None or not await asyncio.to_thread(self._is_ours, scene.path):
            raise CallError(Error.NOT_COVERED, f"{unit} is no session or unit that the settings cover.")
        return teardown

    def _is_ours(self, path: str) -> bool:
        try:
            return self._reclaimer.backend.nearest_live(path) == path
        except KernelError:
            return False
