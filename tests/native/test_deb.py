"""The package: the same bytes wherever and whenever it is built, and not larger than it should be."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Tell
from tests.vm.package import MAKE_TIMEOUT_SEC, deb

CHECKOUT = Path(__file__).parents[2]
MOST_INSTALLED_KIB = 1_000_000 >> 10


@pytest.mark.timeout(2 * MAKE_TIMEOUT_SEC)
def test_the_same_bytes_wherever_it_is_built(tmp_path: Path) -> None:
    first = deb()
    subprocess.run(
        [
            "make",
            "--no-print-directory",
            "deb",
            f"DEB_BUILD={tmp_path}/else/where",
            f"DEB_OUT={tmp_path}/out",
        ],
        cwd=CHECKOUT,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TZ": "Pacific/Kiritimati", "LC_ALL": "C"},
        umask=0o077,
        capture_output=True,
        check=True,
    )
    [second] = (tmp_path / "out").glob("*.deb")
    assert second.name == first.name
    assert digest(second) == digest(first)


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_it_is_small_and_holds_what_it_is_for(tell: Tell) -> None:
    package = deb()
    size = subprocess.run(
        ["dpkg-deb", "--field", package, "Installed-Size"], capture_output=True, text=True, check=True
    )
    tell(f"installed size: {size.stdout.strip()} KiB, the package {package.stat().st_size >> 10} KiB")
    assert int(size.stdout) < MOST_INSTALLED_KIB
    listed = subprocess.run(["dpkg-deb", "--contents", package], capture_output=True, text=True, check=True)
    files = {line.split()[5].removeprefix(".") for line in listed.stdout.splitlines()}
    for wanted in (
        "/etc/logindguard/config.yaml",
        "/etc/logindguard/config.d/",
        "/usr/bin/logindguardctl",
        "/usr/libexec/logindguard-hook",
        "/usr/libexec/logindguard-idle",
        "/usr/libexec/logindguardd",
        "/usr/share/bash-completion/completions/logindguardctl",
        "/usr/share/man/man1/logindguardctl.1.gz",
        "/usr/share/man/man8/logindguard.8.gz",
        "/usr/share/man/man8/logindguardd.8.gz",
        "/usr/share/polkit-1/actions/org.logindguard1.policy",
    ):
        assert wanted in files
    assert not [file for file in files if file.endswith((".png", ".pyc")) or "/tests/" in file]
