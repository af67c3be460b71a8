"""A cgroup tree of plain files, for what the real one cannot be made to do at will.

tests/kernel/test_contract.py holds it to the real one.
"""

from __future__ import annotations

from pathlib import Path

from logindguard.kernel.cgroupfs import Hierarchy

STAT_KEYS = (
    "anon",
    "file",
    "file_mapped",
    "file_dirty",
    "file_writeback",
    "shmem",
    "pgsteal",
    "workingset_refault_file",
)


class FakeTree:
    """cgroup v2 with memory_recursiveprot, below a directory of the test."""

    def __init__(self, directory: Path, *, recursiveprot: bool = True) -> None:
        self.hierarchy = Hierarchy(
            2, directory, frozenset({"memory_recursiveprot"} if recursiveprot else set())
        )
        self._fill(directory)

    def _fill(self, directory: Path) -> None:
        (directory / "cgroup.procs").write_text("")
        (directory / "cgroup.events").write_text("populated 1\nfrozen 0\n")
        (directory / "cgroup.controllers").write_text("memory\n")
        (directory / "cgroup.subtree_control").write_text("memory\n")
        (directory / "cgroup.stat").write_text("nr_descendants 0\nnr_dying_descendants 0\n")
        (directory / "memory.stat").write_text("".join(f"{key} 0\n" for key in STAT_KEYS))
        for name, text in (
            ("current", "0"),
            ("min", "0"),
            ("max", "max"),
            ("high", "max"),
            ("reclaim", ""),
            ("swap.max", "max"),
        ):
            (directory / f"memory.{name}").write_text(text + "\n")

    def directory(self, path: str) -> Path:
        return self.hierarchy.mount / path.strip("/")

    def add(self, path: str, *, dying: int = 0, current: int = 0, **stat: int) -> Path:
        directory = self.directory(path)
        directory.mkdir()
        self._fill(directory)
        self.set(path, dying=dying, **stat)
        (directory / "memory.current").write_text(f"{current}\n")
        return directory

    def set(self, path: str, *, dying: int, **stat: int) -> None:
        directory = self.directory(path)
        (directory / "cgroup.stat").write_text(f"nr_descendants 0\nnr_dying_descendants {dying}\n")
        (directory / "memory.stat").write_text("".join(f"{key} {stat.get(key, 0)}\n" for key in STAT_KEYS))

    def remove(self, path: str) -> None:
        directory = self.directory(path)
        for entry in directory.iterdir():
            if entry.is_dir():
                self.remove(f"{path}/{entry.name}")
            else:
                entry.unlink()
        directory.rmdir()

    def memory_min(self, path: str) -> str:
        return (self.directory(path) / "memory.min").read_text().strip()
