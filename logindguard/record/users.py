"""User names of this machine, for journal lines.

From /etc/passwd alone: the name service may ask the network, and a guard must not wait for a
directory server at each logout. Users known only there are told by uid.
"""

from __future__ import annotations

from pathlib import Path

PASSWD = Path("/etc/passwd")


class Users:
    """uid -> name, read again when the file has changed."""

    def __init__(self, path: Path = PASSWD) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._names: dict[int, str] = {}

    def names(self) -> dict[int, str]:
        """Empty when the file cannot be read. The first entry of a uid gives its name, as in getpwuid(3)."""
        try:
            status = self._path.stat()
            now = (status.st_mtime_ns, status.st_size, status.st_ino)
            if now != self._seen:
                self._names = _parse(self._path.read_text(encoding="utf-8", errors="surrogateescape"))
                self._seen = now
        except OSError:
            return {}
        return self._names


def _parse(passwd: str) -> dict[int, str]:
    names: dict[int, str] = {}
    for line in passwd.splitlines():
        name, _, rest = line.partition(":")
        uid = rest.partition(":")[2].partition(":")[0]
        if name and uid.isascii() and uid.isdecimal():
            names.setdefault(int(uid), name)
    return names
