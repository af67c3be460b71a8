"""The unit as systemd reads it: nothing misspelt, and no more rights than were decided."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

UNIT = Path(__file__).parents[2] / "units" / "logindguard.service"


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    copy.write_text(re.sub(r"/usr/libexec/logindguard\S+", "/bin/true", UNIT.read_text()))
    verify = analyze("verify", "--man=no", copy)
    # Whatever else this machine's own units lack is not ours.
    ours = [line for line in verify.stderr.splitlines() if str(copy) in line or line.startswith(UNIT.name)]
    assert ours == []
    broken = tmp_path / "broken" / UNIT.name
    broken.parent.mkdir()
    broken.write_text(copy.read_text().replace("[Service]", "[Service]\nProtectSytem=yes"))
    assert "ProtectSytem" in analyze("verify", "--man=no", broken).stderr


def test_the_exposure_does_not_grow() -> None:
    checked = analyze("security", "--offline=true", "--no-pager", "--threshold=11", UNIT)
    assert checked.returncode == 0, checked.stdout
