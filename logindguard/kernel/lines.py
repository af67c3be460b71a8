"""Lines of the kernel's files in which names of users' making stand.

Hard facts (fs/proc_namespace.c, kernel/cgroup/cgroup.c):

- "\\n" ends a line, and nothing else does. In the name of a mount it is escaped, with the blank, the tab
  and the backslash, as \\012; no cgroup may have it in its name. All else stands there as it was given.
- Python's text files end a line at "\\r" too, str.splitlines() at eight more, and str.split() takes any
  blank of Unicode for one.
"""

from __future__ import annotations

import re
from pathlib import Path

_ESCAPED = re.compile(r"\\([0-7]{3})")


def lines_of(path: Path) -> list[str]:
    """Without their ends; bytes that are no UTF-8 are surrogates. Raises OSError."""
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    return [line for line in text.split("\n") if line]


def unescaped(name: str) -> str:
    """A path of mountinfo or mounts as it is."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), name)
