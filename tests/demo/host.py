"""This machine as the native demo uses it: one cgroup and one directory of its own, both removed at its end.

Nothing outside of them is written to. What a killed run left is removed by the next one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from logindguard.kernel.cgroupfs import Hierarchy, detect
from tests.lab.leak import dying

PREFIX = "logindguard-demo-"
MEMORY_BYTES = 512 << 20  # available; what the demo takes is less than half of it
DISK_BYTES = 512 << 20
RMDIR_SEC = 10.0


class CannotRun(Exception):
    """This machine is not one to show the guard on; one sentence."""


@dataclass(frozen=True, slots=True)
class Host:
    """`root` is the demo's cgroup as a directory, `work_dir` is on a disk."""

    hierarchy: Hierarchy
    root: Path
    work_dir: Path

    @property
    def version(self) -> int:
        return self.hierarchy.version

    def cgroup_path(self, directory: Path) -> str:
        return f"/{directory.relative_to(self.hierarchy.mount)}"

    def parent(self, name: str) -> Path:
        """A cgroup below `root` whose children have the memory controller."""
        path = self.root / name
        path.mkdir()
        if self.version == 2:
            (path / "cgroup.subtree_control").write_text("+memory")
        return path

    def dying(self, parent: Path, bytes_each: int) -> int:
        """Dying memcgs below `parent`.

        v1 counts them for the whole machine, where others come and go: there it is as many as the page
        cache stands for that they hold, at `bytes_each`.
        """
        return dying(parent) if self.version == 2 else -(-self.held_by_dying_bytes(parent) // bytes_each)

    def machine_dying(self) -> int:
        """Dying memcgs of the whole machine on v1; on v2 of the demo."""
        return dying(self.root)

    def held_by_dying_bytes(self, parent: Path) -> int:
        """Page cache below `parent` that none of its live children holds."""
        whole = self._page_cache_bytes(parent)  # first: what is charged meanwhile makes it look smaller
        live = [each for each in parent.iterdir() if each.is_dir()]
        return max(0, whole - sum(self._page_cache_bytes(each) for each in live))

    def _page_cache_bytes(self, cgroup: Path) -> int:
        """Of the whole subtree, dying memcgs included."""
        key = "file" if self.version == 2 else "total_cache"
        for line in (cgroup / "memory.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return int(value)
        raise CannotRun(f"memory.stat of {cgroup} has no {key}.")


@contextlib.contextmanager
def own_place() -> Iterator[Host]:
    """Makes both, removes both; raises CannotRun before anything is made."""
    hierarchy = _check()
    _remove_leftovers(hierarchy)
    root = hierarchy.mount / f"{PREFIX}{os.getpid()}"
    work_dir = _disk() / f"{PREFIX}{os.getpid()}"
    try:
        try:
            root.mkdir()
            if hierarchy.version == 2:
                (root / "cgroup.subtree_control").write_text("+memory")
        except OSError as error:
            raise CannotRun(f"No cgroup can be made in {hierarchy.mount}: {error.strerror}.") from error
        work_dir.mkdir(mode=0o700)
        yield Host(hierarchy, root, work_dir)
    finally:
        shutil.rmtree(work_dir, ignore_errors=True)
        remove(root)


def remove(cgroup: Path) -> None:
    """With all below it; waits for processes that are on their way out. Raises OSError where they stay."""
    deadline = time.monotonic() + RMDIR_SEC
    while cgroup.exists():
        for directory, _, _ in os.walk(cgroup, topdown=False):
            try:
                Path(directory).rmdir()
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


def _check() -> Hierarchy:
    if os.geteuid() != 0:
        raise CannotRun("It makes cgroups, which needs root.")
    hierarchy = detect()
    if hierarchy is None:
        raise CannotRun("No cgroup hierarchy with the memory controller is mounted here.")
    if hierarchy.version == 2:
        enabled = (hierarchy.mount / "cgroup.subtree_control").read_text().split()
        if "memory" not in enabled:
            raise CannotRun(f"The memory controller is off for new cgroups (see {hierarchy.mount}).")
    available = available_bytes()
    if available < MEMORY_BYTES:
        raise CannotRun(f"It wants {MEMORY_BYTES >> 20} MiB of free memory; {available >> 20} MiB are free.")
    disk = os.statvfs(_disk())
    free = disk.f_bavail * disk.f_frsize
    if free < DISK_BYTES:
        raise CannotRun(f"It wants {DISK_BYTES >> 20} MiB of free space in {_disk()}; it has {free >> 20}.")
    return hierarchy


def resident_pages(directory: Path) -> int:
    """Pages of the files in it that are in memory, by fincore(1)."""
    files = [str(path) for path in directory.iterdir()]
    command = ["fincore", "--bytes", "--noheadings", "--output", "PAGES", *files]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    return sum(int(line) for line in told.stdout.split())


def available_bytes(proc: Path = Path("/proc")) -> int:
    for line in (proc / "meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    raise CannotRun("The kernel does not tell how much memory is available.")


def swap_on(proc: Path = Path("/proc")) -> bool:
    return len((proc / "swaps").read_text().splitlines()) > 1


def _disk() -> Path:
    return Path("/var/tmp")  # /tmp may be a tmpfs, whose pages no reclaim can take


def _remove_leftovers(hierarchy: Hierarchy) -> None:
    for place in (hierarchy.mount, _disk()):
        for path in place.glob(f"{PREFIX}[0-9]*"):
            if Path(f"/proc/{path.name.removeprefix(PREFIX)}").exists():
                continue  # another demo runs
            if place == hierarchy.mount:
                with contextlib.suppress(OSError):
                    remove(path)
            else:
                shutil.rmtree(path, ignore_errors=True)
