"""A host of plain files: Debian 12 on cgroup v2, with two users' slices."""

from __future__ import annotations

from pathlib import Path

from logindguard.ctl.roots import Roots
from tests.unit.fake_cgroupfs import FakeTree

from .conftest import write

COMMON_SESSION = """\
# here are the per-package modules (the "Primary" block)
session [default=1]                     pam_permit.so
session required                        pam_unix.so
session optional                        pam_systemd.so
"""

LRU_GEN = """\
memcg     1 /
 node     0
          0     100000          0        500
memcg     0 /user.slice/user-61001.slice/session-3.scope
 node     0
          0     100000          9       1808
memcg     0 /user.slice/user-61001.slice/user@61001.service/app.slice/app-org.example.Something.slice
 node     0
          0     100000          0         16
memcg     0 /system.slice/cron-backup.service
 node     0
          0     100000          0          0
"""


def debian(
    roots: Roots, *, release: str = "6.1.0-56-amd64", heals: bool = False, recursiveprot: bool = True
) -> FakeTree:
    mount = roots.sys / "fs/cgroup"
    mount.mkdir(parents=True)
    tree = FakeTree(mount)
    tree.add("/user.slice", dying=5, file=20 << 20)
    tree.add("/user.slice/user-61001.slice", dying=4, file=12 << 20, file_dirty=1 << 20)
    tree.add("/user.slice/user-61001.slice/session-3.scope", dying=0, file=2 << 20)
    tree.add("/system.slice", dying=0, file=64 << 20)
    tree.set("/", dying=5, file=84 << 20)
    options = "rw,nsdelegate,memory_recursiveprot" if recursiveprot else "rw,nsdelegate"
    write(
        roots.proc / "self/mountinfo",
        f"25 19 0:22 / {mount} rw,nosuid shared:4 - cgroup2 cgroup2 {options}\n",
    )
    write(roots.proc / "sys/kernel/osrelease", f"{release}\n")
    write(roots.proc / "cmdline", "BOOT_IMAGE=/boot/vmlinuz root=/dev/vda1 ro quiet\n")
    write(roots.proc / "pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n")
    write(roots.sys / "kernel/btf/vmlinux", "\0lru_reparent_memcg\0" if heals else "\0nothing\0")
    write(roots.etc / "pam.d/common-session", COMMON_SESSION)
    write(roots.etc / "pam.d/sshd", "session required pam_loginuid.so\n@include common-session\n")
    write(roots.etc / "pam.d/cron", "@include common-session-noninteractive\n")
    write(roots.etc / "pam.d/common-session-noninteractive", "session required pam_unix.so\n")
    write(roots.usr / "sbin/cron")
    write(roots.usr / "libexec/logindguardd")
    write(roots.usr / "share/pam-configs/logindguard")
    write(roots.usr / "share/dbus-1/system-services/org.freedesktop.PolicyKit1.service")
    (roots.var / "log/journal").mkdir(parents=True)
    return tree


def settings(roots: Roots, text: str, dropin: str = "") -> Path:
    if dropin:
        write(roots.etc / "logindguard/config.d/10-site.yaml", dropin)
    return write(roots.etc / "logindguard/config.yaml", text)
