"""The real journald, alone in a mount namespace with a /run of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).parents[1]

_SCRIPT = """
set -eu
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journald.conf.d /run/log/journal
cat >/run/systemd/journald.conf.d/test.conf <<END
[Journal]
Storage=volatile
ReadKMsg=no
Audit=
RateLimitBurst=0
RuntimeMaxUse=1G
RuntimeMaxFileSize=512M
ForwardToSyslog=no
ForwardToConsole=no
ForwardToWall=no
END
if ! [ -s /etc/machine-id ]; then
    echo 0123456789abcdef0123456789abcdef >/run/machine-id
    mount --bind /run/machine-id /etc/machine-id
fi
/lib/systemd/systemd-journald &
journald=$!
trap 'kill $journald; wait $journald || :' EXIT
for _ in $(seq 100); do [ -S /run/systemd/journal/socket ] && break; sleep 0.05; done
writer=$1
shift
sh -c "$writer" 2>/run/stderr || { cat /run/stderr >&2; exit 1; }
journalctl --sync
"$@"
"""


def under_journald(writer: str, reader: list[str], *, timeout_sec: float = 60) -> str:
    """What `reader` prints after the shell command `writer` has told the journal what it had to tell."""
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "bash", "-c", _SCRIPT, "-", writer, *reader],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        cwd=TOP,
        timeout=timeout_sec,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def python(program: str) -> list[str]:
    return [sys.executable, "-B", "-c", program]
