"""Long output goes through a pager, the way systemd's tools do it (systemd(1), pager.c)."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

LESS_OPTIONS = "FRSXMK"
_NO_LOGIN_UID = 4294967295


def command(environment: Mapping[str, str], *, elevated: bool) -> list[str]:
    """The pager's words; empty for none. `elevated`: somebody works with another's rights, as under sudo."""
    if elevated and "SYSTEMD_PAGERSECURE" not in environment:
        # A pager of the user's choice is a shell with the rights of root.
        chosen = None
    else:
        chosen = environment.get("SYSTEMD_PAGER", environment.get("PAGER"))
    if chosen is not None:
        words = shlex.split(chosen)
        return [] if words in ([], ["cat"]) else words
    return next(([name] for name in ("less", "more") if shutil.which(name)), [])


def settings(environment: Mapping[str, str], *, elevated: bool) -> dict[str, str]:
    """The environment of the pager."""
    secure = environment.get("SYSTEMD_PAGERSECURE", "1" if elevated else "0")
    return {
        **environment,
        "LESS": environment.get("SYSTEMD_LESS", LESS_OPTIONS),
        "LESSCHARSET": environment.get("SYSTEMD_LESSCHARSET", "utf-8"),
        **({"LESSSECURE": "1"} if secure.lower() not in ("0", "no", "n", "false", "f", "off") else {}),
    }


def is_elevated(proc: Path = Path("/proc")) -> bool:
    """Whether the session belongs to another user than these rights: sudo, su, pkexec."""
    try:
        login_uid = int((proc / "self/loginuid").read_text())
    except (OSError, ValueError):
        login_uid = _NO_LOGIN_UID
    if login_uid != _NO_LOGIN_UID:
        return login_uid != os.geteuid()
    return any(name in os.environ for name in ("SUDO_UID", "PKEXEC_UID"))


def show(text: str, environment: Mapping[str, str]) -> bool:
    """Run the pager on `text`; False where there is none to run."""
    elevated = is_elevated()
    words = command(environment, elevated=elevated)
    if not words:
        return False
    try:
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, env=settings(environment, elevated=elevated), text=True
        )
    except OSError:
        return False
    while True:
        try:
            process.communicate(text)
            return True
        except KeyboardInterrupt:  # the pager's own key, for a search that takes long
            continue
