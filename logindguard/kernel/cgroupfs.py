"""cgroupfs: where it is mounted, handles that survive reuse of a path, typed readings.

Hard facts (kernel/cgroup/cgroup.c, fs/kernfs, Documentation/admin-guide/cgroup-v2.rst):

- A path says nothing about identity: `session-3.scope` can be removed and made
  again between two system calls. A handle is a directory descriptor, and the
  directory's inode is the kernfs id, 64 bits wide and never reused (on 64-bit kernels).
- A cgroup can disappear between any two calls. Opening a file through the
  descriptor of a removed directory gives ENOENT, reading or writing a file that
  was open before gives ENODEV. Both are one exception here, `CgroupGone`.
- Reading or writing a control file holds a kernfs active reference; `rmdir` of
  that cgroup waits for it *with cgroup_mutex held*, and with it every other
  cgroup operation on the machine. So nothing here keeps a control file open.
- `memory.min`, `memory.max`, `memory.high` are pages, shown as bytes, or "max".
- `memory.stat` of a live cgroup is hierarchical and includes offline children.
- The root cgroup has `memory.stat` but none of the limits.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from .lines import lines_of, unescaped

# Nobody removes them while the machine runs: those of systemd.special(7), and what the kubelet makes
# once for all pods and for each class of them, with systemd's driver and with its own.
PERMANENT = frozenset(
    {
        *("/user.slice", "/system.slice", "/machine.slice"),
        *("/kubepods.slice", "/kubepods", "/kubepods/burstable", "/kubepods/besteffort"),
        *(f"/kubepods.slice/kubepods-{name}.slice" for name in ("burstable", "besteffort")),
    }
)
# Users nest cgroups as deep as they like below their own manager; what hangs deeper is left alone.
MAX_DEPTH = 64
ROOT_INODE = 1  # kernfs numbers from there, on v1 and on v2
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_BYTES = 1 << 16  # more than any control file that is read here, in one system call
_TOO_MUCH = 1 << 63  # what PAGE_COUNTER_MAX is below, in bytes; a counter beyond it is a broken reading


class KernelError(Exception):
    """Base of what the kernel seam reports; `path` is the cgroup, `file` the control file."""

    def __init__(self, path: str, file: str, message: str) -> None:
        super().__init__(f"{path}: {file}: {message}" if file else f"{path}: {message}")
        self.path = path
        self.file = file


class CgroupGone(KernelError):
    """The cgroup was removed; expected anywhere."""

    def __init__(self, path: str, file: str = "") -> None:
        super().__init__(path, file, "cgroup is gone")


class Unsupported(KernelError):
    """This kernel has no such file, or does not take such a word."""


class BadReading(KernelError):
    """A control file without an expected key, or with something else than a number."""


class KernelRefused(KernelError):
    """Any other errno, kept in `errno`."""

    def __init__(self, path: str, file: str, error: OSError) -> None:
        super().__init__(path, file, os.strerror(error.errno or 0))
        self.errno = error.errno


@dataclass(frozen=True, slots=True)
class MemoryStat:
    """The keys of memory.stat that decisions need; bytes, events for the last two."""

    anon: int
    file: int  # shmem included
    file_mapped: int
    file_dirty: int
    file_writeback: int
    shmem: int
    pgsteal: int
    workingset_refault_file: int


_MEMORY_STAT_KEYS = tuple(MemoryStat.__dataclass_fields__)


class Cgroup:
    """An open cgroup directory. Close it, or use it as a context manager."""

    __slots__ = ("fd", "inode", "path")

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path
        self.inode = os.fstat(fd).st_ino

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __repr__(self) -> str:
        return f"<Cgroup {self.path} inode={self.inode}>"

    @contextmanager
    def errors(self, file: str) -> Iterator[None]:
        """Turns an OSError of the block into one of the errors above."""
        try:
            yield
        except OSError as error:
            if error.errno == errno.ENODEV or (error.errno == errno.ENOENT and not self.alive()):
                raise CgroupGone(self.path, file) from error
            if error.errno in (errno.ENOENT, errno.EOPNOTSUPP):
                raise Unsupported(self.path, file, "this kernel has no such file") from error
            raise KernelRefused(self.path, file, error) from error

    def alive(self) -> bool:
        """Whether the directory still exists; every cgroup has cgroup.procs."""
        try:
            os.stat("cgroup.procs", dir_fd=self.fd)
        except OSError:
            return False
        return True

    def open_child(self, name: str) -> Cgroup:
        with self.errors(""):
            try:
                fd = os.open(name, _OPEN_DIRECTORY, dir_fd=self.fd)
            except FileNotFoundError as error:
                raise CgroupGone(join(self.path, name)) from error
        return Cgroup(fd, join(self.path, name))

    def child_names(self) -> list[str]:
        with self.errors(""), os.scandir(self.fd) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]

    def children(self) -> Iterator[Cgroup]:
        """Live children, each closed when the next one is asked for; the vanished are passed over."""
        for name in self.child_names():
            try:
                child = self.open_child(name)
            except CgroupGone:
                continue
            with child:
                yield child

    def read(self, file: str) -> str:
        with self.errors(file):
            fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
            try:
                parts = []
                while part := os.read(fd, _READ_BYTES):
                    parts.append(part)
            finally:
                os.close(fd)
        return b"".join(parts).decode("ascii", "replace")

    def write(self, file: str, value: str) -> None:
        with self.errors(file):
            fd = os.open(file, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
            try:
                os.write(fd, value.encode("ascii"))
            finally:
                os.close(fd)

    # Typed readings, each file name once.

    def number(self, file: str, text: str) -> int:
        """Raises BadReading for what is no count that a kernel could mean."""
        try:
            number = int(text)
        except ValueError:
            number = -1
        if not 0 <= number < _TOO_MUCH:
            raise BadReading(self.path, file, f"not a number that can be: {text[:40]!r}")
        return number

    def numbers(self, file: str, keys: Iterable[str]) -> list[int]:
        """The values of these keys of a file of "key value" lines. Raises BadReading where one is missing."""
        keyed = self.keyed(file)
        try:
            return [self.number(file, keyed[key]) for key in keys]
        except KeyError as error:
            raise BadReading(self.path, file, f"no key {error.args[0]}") from error

    def keyed(self, file: str) -> dict[str, str]:
        words = self.read(file).split()
        return dict(zip(words[::2], words[1::2], strict=False))

    def dying(self, key: str = "nr_dying_descendants") -> int:
        """Removed but still pinned below here (cgroup.stat, 4.14+; per subsystem 6.12+)."""
        return self.numbers("cgroup.stat", [key])[0]

    def memory_stat(self) -> MemoryStat:
        return MemoryStat(*self.numbers("memory.stat", _MEMORY_STAT_KEYS))

    def memory_current(self) -> int:
        return self.number("memory.current", self.read("memory.current"))

    def memory_limit(self, file: str) -> int | None:
        """memory.min, .max, .high or .swap.max in bytes, or memory.swappiness of v1; None is "max"."""
        text = self.read(file).strip()
        return None if text == "max" else self.number(file, text)

    def set_memory_limit(self, file: str, value: int | None) -> None:
        self.write(file, "max" if value is None else str(value))

    def populated(self) -> bool:
        """Whether a process lives in the subtree (cgroup.events)."""
        return self.keyed("cgroup.events").get("populated") != "0"

    def controllers(self) -> frozenset[str]:
        return frozenset(self.read("cgroup.controllers").split())

    def controllers_below(self) -> frozenset[str]:
        return frozenset(self.read("cgroup.subtree_control").split())


def is_cgroup_path(path: object) -> bool:
    """Whether it is "/" or an absolute path of names: no empty one, no "." or "..", no NUL."""
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        return False
    return path == "/" or not {"", ".", ".."} & {*path[1:].split("/")}


def join(path: str, name: str) -> str:
    return f"/{name}" if path == "/" else f"{path}/{name}"


def within(path: str, root: str) -> bool:
    """Whether `path` is `root` or below it, by whole components."""
    return root == "/" or path == root or path.startswith(root + "/")


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """The hierarchy that has the memory controller."""

    version: int  # 1 or 2
    mount: Path
    options: frozenset[str] = frozenset()

    @property
    def whole(self) -> bool:
        """Whether all cgroups are below this mount; else, as in most containers, those of a subtree."""
        return self.mount.stat().st_ino == ROOT_INODE

    def open(self, path: str) -> Cgroup:
        """Open by cgroup path. `path` comes from readings, never from a user; still no `..`."""
        if not is_cgroup_path(path):
            raise ValueError(f"not a cgroup path: {path!r}")
        try:
            # Not by pathlib, which is slow here and interns the name of every session there ever was.
            fd = os.open(f"{self.mount}{path}", _OPEN_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise CgroupGone(path) from error
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG and path != "/":  # longer than PATH_MAX: level by level
                parent, _, name = path.rpartition("/")
                with self.open(parent or "/") as above:
                    return above.open_child(name)
            raise KernelRefused(path, "", error) from error
        return Cgroup(fd, path)

    def inode_of(self, path: str) -> int | None:
        """Kernfs id of the live cgroup at `path`; None when there is none."""
        try:
            with self.open(path) as cgroup:
                return cgroup.inode
        except (KernelError, ValueError):
            return None

    def nearest_live(self, path: str) -> str:
        """`path`, or the nearest ancestor that still exists. KernelRefused where that cannot be told."""
        while path != "/":
            try:
                self.open(path).close()
                break
            except CgroupGone:
                path = path.rpartition("/")[0] or "/"
        return path


def detect(proc: Path = Path("/proc")) -> Hierarchy | None:
    """The mounted hierarchy that has the memory controller, v1 before v2; None when there is none.

    A controller is on one hierarchy at a time, so a v1 memory mount means that
    v2 does not have it (hybrid hosts). Source: proc_pid_mountinfo(5), cgroups(7).
    """
    unified: Hierarchy | None = None
    for line in lines_of(proc / "self/mountinfo"):
        left, _, right = line.partition(" - ")
        mount = Path(unescaped(left.split(" ")[4]))
        kind, _, super_options = right.split(" ", 2)
        options = frozenset(super_options.split(","))
        if kind == "cgroup" and "memory" in options:
            return Hierarchy(1, mount, options)
        if kind == "cgroup2" and unified is None:
            unified = Hierarchy(2, mount, options)
    if unified is None:
        return None
    try:
        controllers = (unified.mount / "cgroup.controllers").read_text().split()
    except OSError:
        return None
    return unified if "memory" in controllers else None
