"""The subtrees that the program is confined to, the same for every backend that reclaims."""

from __future__ import annotations

from ..model import Residue
from .cgroupfs import Cgroup, CgroupGone, Hierarchy, within


class Confined:
    """A hierarchy, and the roots in it that nothing outside of is reclaimed; none means all."""

    def __init__(self, hierarchy: Hierarchy, roots: tuple[str, ...] = ()) -> None:
        self.hierarchy = hierarchy
        self._roots = roots or ("/",)

    def nearest_live(self, path: str) -> str:
        live = self.hierarchy.nearest_live(path)
        if not self._is_ours(live):
            raise CgroupGone(path)
        return live

    def _is_ours(self, path: str) -> bool:
        return any(within(path, root) for root in self._roots)

    def _open(self, residue: Residue) -> Cgroup:
        """The very cgroup that was read, by its inode. Raises CgroupGone; ValueError outside the roots."""
        if not self._is_ours(residue.path):
            raise ValueError(f"{residue.path} is outside the configured roots")
        target = self.hierarchy.open(residue.path)
        if target.inode != residue.inode:
            target.close()
            raise CgroupGone(residue.path)
        return target
