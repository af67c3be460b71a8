"""What a cgroup path says by itself: whose it is, and whether a container's."""

from __future__ import annotations

import re

_USER_SLICE = re.compile(r"/user-([0-9]{1,10})\.slice(?:/|$)")
_CONTAINER = re.compile(r"(?:^|/)(?:docker|libpod|cri-containerd|crio|lxc|machine|kubepods)\b")


def uid_of_path(path: str) -> int | None:
    """The user whose slice a cgroup is in; None where it is in none, or in that of a container's user."""
    match = _USER_SLICE.search(path)
    if match is None or _CONTAINER.search(path, 0, match.start()):
        return None
    return int(match[1])


def in_container(path: str) -> bool:
    """By the names that container managers give."""
    return _CONTAINER.search(path) is not None
