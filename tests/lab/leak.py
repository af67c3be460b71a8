#!/usr/bin/python3
"""Makes dying memcgs on purpose: mkdir, a process enters, touches files, leaves, rmdir.

    leak.py --root CGROUP [--parent CGROUP] --work-dir DIR [--count N] [--bytes N]
            [--pattern read|written|mapped|shmem] [--depth N] [--keep]

Prints one JSON summary once they are made, then holds them until its input ends or a signal
comes, and removes every file and cgroup that it made. The files are what pins the memcgs: with
--keep they stay behind, and the dying memcgs with them, until DIR is removed.

Standard library only: it is copied into machines and run there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import mmap
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn, Self

PAGE_BYTES = mmap.PAGESIZE
# Measured: 20 KiB of kernel memory per memcg on 2 CPUs, 350 KiB on 96.
KERNEL_BYTES = 13_000
KERNEL_BYTES_PER_CPU = 3_600
CLEAN_TIMEOUT_SEC = 120
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Refusal(Exception):
    """What was asked could hurt this machine, or cannot work here; one sentence."""


class Pattern(StrEnum):
    """What the process does inside; each charges `bytes` of page cache to the memcg."""

    READ = "read"  # clean pages of one prepared file
    WRITTEN = "written"  # a file of its own: dirty first, and its inode's writeback too
    MAPPED = "mapped"  # pages that this process keeps mapped from outside
    SHMEM = "shmem"  # pages of a file on tmpfs


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    root: Path  # existing cgroup that nothing outside of is touched
    parent: Path  # `root` or below it; made when missing
    work_dir: Path  # made; on tmpfs for shmem, on a disk for the others
    count: int
    bytes: int  # for each, rounded up to pages
    pattern: Pattern
    depth: int  # of each: nested cgroups, all of which go offline

    @property
    def pages_bytes(self) -> int:
        return -(-self.bytes // PAGE_BYTES) * PAGE_BYTES

    @property
    def memcgs(self) -> int:
        return self.count * self.depth


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """`dying_*` is below the parent on v2, of the whole machine on v1, which counts no subtrees."""

    made: int
    bytes_each: int
    seconds: float
    dying_before: int
    dying_after: int


# What it needs to know of the machine


def memory_mount(cgroup: Path) -> tuple[Path, int]:
    """Mount point of the hierarchy that `cgroup` is in, and its version; raises Refusal."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        mount = Path(fields.split()[4])
        kind, _, options = kind.split()
        version = 2 if kind == "cgroup2" else 1 if "memory" in options.split(",") else None
        if version is not None and kind.startswith("cgroup") and cgroup.resolve().is_relative_to(mount):
            return mount, version
    raise Refusal(f"{cgroup} is not in a cgroup hierarchy with a memory controller.")


def dying(parent: Path) -> int:
    """Dying memcgs: below `parent` on v2, of the whole machine on v1."""
    mount, version = memory_mount(parent)
    if version == 2:
        stat = dict(line.split() for line in (parent / "cgroup.stat").read_text().splitlines())
        return int(stat["nr_dying_descendants"])
    lines = Path("/proc/cgroups").read_text().splitlines()
    counted = next(int(line.split()[2]) for line in lines if line.startswith("memory\t"))
    return counted - sum(1 for _ in os.walk(mount))


def kernel_bytes_per_memcg() -> int:
    return KERNEL_BYTES + KERNEL_BYTES_PER_CPU * (os.cpu_count() or 1)


def check(order: Order) -> None:
    """Raises Refusal where the order could hurt, before anything is made."""
    if os.geteuid() != 0:
        raise Refusal("Making cgroups needs root.")
    if min(order.count, order.depth, order.bytes) < 1:
        raise Refusal("Count, bytes and depth must be at least 1.")
    if not order.root.is_dir():
        raise Refusal(f"The root {order.root} does not exist.")
    mount, version = memory_mount(order.root)
    if order.root.resolve() == mount:
        raise Refusal(f"{order.root} is the whole hierarchy: name a cgroup of your own.")
    if not order.parent.resolve().is_relative_to(order.root.resolve()):
        raise Refusal(f"The parent {order.parent} is not below the root {order.root}.")
    if version == 2 and "memory" not in (order.root / "cgroup.controllers").read_text().split():
        raise Refusal(f"{order.root} has no memory controller.")
    if order.work_dir.exists():
        raise Refusal(f"The work directory {order.work_dir} exists already.")
    _check_room(order)


def _check_room(order: Order) -> None:
    on_tmpfs = _filesystem(order.work_dir.parent) == "tmpfs"
    if on_tmpfs != (order.pattern is Pattern.SHMEM):
        kind = "a tmpfs" if order.pattern is Pattern.SHMEM else "a disk"
        raise Refusal(f"The pattern {order.pattern} needs a work directory on {kind}.")
    content = order.count * order.pages_bytes
    memory = order.memcgs * kernel_bytes_per_memcg() + content
    available = _available_bytes()
    if memory > available // 2:
        raise Refusal(
            f"That takes about {memory >> 20} MiB of memory, more than half of the {available >> 20} MiB"
            " that are available."
        )
    room = os.statvfs(order.work_dir.parent)
    if content > room.f_bavail * room.f_frsize // 2:
        raise Refusal(f"That takes {content >> 20} MiB, more than half of what is free on the disk.")
    if order.pattern is Pattern.WRITTEN and room.f_files and order.count > room.f_favail // 2:
        raise Refusal(
            f"That takes {order.count} files, more than half of what the file system may still hold."
        )


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    raise Refusal("The kernel does not tell how much memory is available.")


def _filesystem(path: Path) -> str:
    found = (Path(), "")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        mount = Path(fields.split()[4])
        if path.resolve().is_relative_to(mount) and len(mount.parts) >= len(found[0].parts):
            found = (mount, kind.split()[0])
    return found[1]


# Making them


class Leak:
    """Makes what an order asks for and cleans up when closed.

    A child of its own enters the memcgs: what a process allocates inside is charged there, and pins
    the memcg for as long as the process keeps it (garbage collection and khugepaged see to that).

    A signal may end it between any two lines: what is to be made is noted down first, and what is
    to be removed may be missing.
    """

    def __init__(self, order: Order, *, keep: bool = False) -> None:
        self._order = order
        self._keep = keep  # the files, once all is made
        self._finished = False
        self._home = own_cgroup(order.root)
        self._made_parents: list[Path] = []
        self._enabled: list[Path] = []
        self._chain: list[Path] = []
        self._child = 0
        self._mapping: mmap.mmap | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clean()

    def make(self) -> Summary:
        order = self._order
        self._make_parent()
        order.work_dir.mkdir()
        before = dying(order.parent)
        started = time.monotonic()
        with self._toucher() as touch:
            self._child = os.fork()
            if self._child == 0:
                self._make_all(touch)
            _, status = os.waitpid(self._child, 0)
            self._child = 0
            if status != 0:
                raise RuntimeError(f"the child that makes them ended with status {status}")
            if self._mapping is not None:
                self._map_all(self._mapping)
        self._finished = True
        return Summary(
            made=order.memcgs,
            bytes_each=order.pages_bytes,
            seconds=round(time.monotonic() - started, 3),
            dying_before=before,
            dying_after=dying(order.parent),
        )

    def _make_all(self, touch: Callable[[int], None]) -> NoReturn:
        status = 1
        try:
            try:
                for index in range(self._order.count):
                    self._one(index, touch)
                status = 0
            finally:
                _ignore_signals()
                self._leave()
        except Exception as error:  # noqa: BLE001  # nothing of the parent's may run in the child
            print(f"leak.py: {error!r}", file=sys.stderr, flush=True)
        finally:
            os._exit(status)

    def _map_all(self, mapping: mmap.mmap) -> None:
        """What the child mapped, which ended with it; the pages stay charged as they are."""
        for offset in range(0, len(mapping), PAGE_BYTES):
            _discard(mapping[offset])

    def _clean(self) -> None:
        """Remove what was made. Without its files nothing pins a memcg, so none is left dying."""
        if self._child:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGTERM)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._child, 0)
        if self._mapping is not None:
            self._mapping.close()
            self._mapping = None
        if not (self._keep and self._finished) and self._order.work_dir.exists():
            shutil.rmtree(self._order.work_dir)
        while self._made_parents:
            _rmdir(self._made_parents.pop())
        while self._enabled:
            # Busy when somebody else has cgroups there by now: then it is needed.
            with contextlib.suppress(OSError):
                _write(self._enabled.pop() / "cgroup.subtree_control", "-memory")

    def _make_parent(self) -> None:
        root = self._order.root.resolve()
        path = root
        self._enable_memory(path)
        for part in self._order.parent.resolve().relative_to(root).parts:
            path = path / part
            if not path.exists():
                self._made_parents.append(path)
                path.mkdir()
            self._enable_memory(path)

    def _enable_memory(self, cgroup: Path) -> None:
        control = cgroup / "cgroup.subtree_control"
        if control.exists() and "memory" not in control.read_text().split():
            if cgroup not in self._made_parents:
                self._enabled.append(cgroup)
            try:
                _write(control, "+memory")
            except OSError as error:
                raise Refusal(f"{cgroup} cannot have children with memory: {error.strerror}.") from error

    def _one(self, index: int, touch: Callable[[int], None]) -> None:
        path = self._order.parent
        for level in range(self._order.depth):
            path = path / f"leak-{os.getpid()}-{index}-{level}"
            self._chain.append(path)
            path.mkdir()
            if level < self._order.depth - 1 and (path / "cgroup.subtree_control").exists():
                _write(path / "cgroup.subtree_control", "+memory")
        _write(path / "cgroup.procs", "0")  # 0: the writer itself
        try:
            touch(index)
        finally:
            self._leave()

    def _leave(self) -> None:
        if self._chain:
            _write(self._home / "cgroup.procs", "0")
            while self._chain:
                _rmdir(self._chain[-1])
                self._chain.pop()

    @contextlib.contextmanager
    def _toucher(self) -> Iterator[Callable[[int], None]]:
        """How the process inside number `index` gets its pages charged."""
        order, size = self._order, self._order.pages_bytes
        buffer = bytearray(size)  # one for all
        if order.pattern is Pattern.WRITTEN:

            def write_own(index: int) -> None:
                (order.work_dir / f"written-{index}").write_bytes(buffer)

            yield write_own
            return
        with (order.work_dir / "pages").open("w+b", buffering=0) as file:
            descriptor = file.fileno()
            if order.pattern is Pattern.SHMEM:
                yield lambda index: _discard(os.pwrite(descriptor, buffer, index * size))
                return
            _prepare(descriptor, order.count * size)
            if order.pattern is Pattern.READ:
                yield lambda index: _discard(os.preadv(descriptor, [buffer], index * size))
                return
            mapping = mmap.mmap(descriptor, order.count * size, prot=mmap.PROT_READ)
            mapping.madvise(mmap.MADV_RANDOM)  # no read-around into the next one's pages
            self._mapping = mapping

            def touch_pages(index: int) -> None:
                for offset in range(index * size, (index + 1) * size, PAGE_BYTES):
                    _discard(mapping[offset])

            yield touch_pages


def _prepare(descriptor: int, size: int) -> None:
    """Fill a file, then have none of it in the page cache: the next reader is charged."""
    block = bytes(1 << 20)
    for offset in range(0, size, len(block)):
        os.pwrite(descriptor, block[: size - offset], offset)
    os.fsync(descriptor)  # DONTNEED passes over dirty pages
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # no read-ahead


def own_cgroup(root: Path) -> Path:
    """Where this process is now, in the hierarchy of `root`: it goes back there."""
    mount, version = memory_mount(root)
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if (version == 2 and controllers == "") or (version == 1 and "memory" in controllers.split(",")):
            return mount / path.lstrip("/")
    raise Refusal("This process is in no cgroup of that hierarchy.")


def _rmdir(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.rmdir()


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _discard(value: object) -> None:
    """For its side effect in the kernel."""


# From another process


@contextlib.contextmanager
def leaked(
    *,
    root: Path,
    work_dir: Path,
    parent: Path | None = None,
    count: int = 100,
    bytes_each: int = PAGE_BYTES,
    pattern: Pattern = Pattern.READ,
    depth: int = 1,
) -> Iterator[Summary]:
    """Dying memcgs for the length of a block, made and held by a process of their own.

    Raises Refusal with its sentence. When the caller dies, the input of that process ends, and it
    cleans up.
    """
    command = [
        *(sys.executable, __file__, "--root", str(root), "--parent", str(parent or root)),
        *("--work-dir", str(work_dir), "--count", str(count), "--bytes", str(bytes_each)),
        *("--pattern", pattern, "--depth", str(depth)),
    ]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        if not line:
            raise Refusal(process.stderr.read().removeprefix("leak.py: ").strip())
        yield Summary(**json.loads(line))
        process.stdin.close()
        if process.wait(CLEAN_TIMEOUT_SEC) != 0:
            raise RuntimeError(f"leak.py left something behind: {process.stderr.read()}")


# From a shell


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        epilog="Without --keep it holds them until its input ends or a signal comes, then removes all.",
    )
    parser.add_argument("--root", type=Path, required=True, help="cgroup directory to stay below")
    parser.add_argument("--parent", type=Path, help="where to make them (default: the root)")
    parser.add_argument("--work-dir", type=Path, required=True, help="directory to make for the files")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--bytes", type=int, default=PAGE_BYTES, help="page cache for each")
    parser.add_argument("--pattern", type=Pattern, choices=list(Pattern), default=Pattern.READ)
    parser.add_argument("--depth", type=int, default=1, help="nested cgroups for each")
    parser.add_argument("--keep", action="store_true", help="leave files and dying memcgs behind, and end")
    return parser.parse_args()


def _end(number: int, frame: FrameType | None) -> NoReturn:
    _ignore_signals()
    raise SystemExit(128 + number)


def _ignore_signals() -> None:
    """From here on it only cleans up, and that must not be cut short."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def main() -> int:
    given = _arguments()
    order = Order(
        root=given.root,
        parent=given.parent or given.root,
        work_dir=given.work_dir,
        count=given.count,
        bytes=given.bytes,
        pattern=given.pattern,
        depth=given.depth,
    )
    for number in SIGNALS:
        signal.signal(number, _end)
    try:
        if given.keep and order.pattern is Pattern.MAPPED:
            raise Refusal("Pages stay mapped only as long as this process lives: --keep cannot go with it.")
        check(order)
        with Leak(order, keep=given.keep) as leak:
            print(json.dumps(asdict(leak.make())), flush=True)
            if not given.keep:
                sys.stdin.read()
            _ignore_signals()
    except Refusal as refusal:
        print(f"leak.py: {refusal}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
