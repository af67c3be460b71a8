"""The systems that tests boot: what is installed (a recipe) and how it is started.

Systems that share a recipe share one image on disk; a further system is one
line here, and tests name it with `on` of conftest.py.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What an image is built from; any change gives a new image."""

    name: str
    suite: str
    packages: tuple[str, ...]  # as apt-get takes them: "name/suite" too
    backports: bool = False  # whether packages may come from the suite's backports
    disk_mib: int = 4096
    swap_mib: int = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A recipe and the way it is booted."""

    name: str
    recipe: Recipe
    differs: str  # from the others, in a few words, for people
    kernel_arguments: tuple[str, ...] = ()
    cgroup_version: int = 2
    tcg: str = "tcg,thread=multi"
    cpus: int = 2
    memory_mib: int = 2048


# All that logindguard depends on is in the image: the machine has no network.
PACKAGES = (
    "linux-image-cloud-amd64",
    "systemd-sysv",
    "dbus",
    "libpam-systemd",
    "openssh-server",
    "cron",
    "sudo",
    "polkitd",
    "libglib2.0-bin",  # gdbus
    "klibc-utils",  # the shell of the hook
    "udev",
    "python3",
    "python3-dbus-next",
    "python3-sdnotify",
    "python3-yaml",
    "python3-systemd",
    "python3-pytest",  # tests of the kernel seam run inside, on its kernel
    "python3-pytest-asyncio",
    "python3-pytest-timeout",
    "iproute2",
    "util-linux-extra",  # fincore, in Debian 13
    "procps",
    "kmod",
    "psmisc",
)

SELF_HEALING_KERNEL = "linux-image-cloud-amd64/trixie-backports"  # 7.1 or later

DEBIAN_12 = Recipe(name="debian-12", suite="bookworm", packages=PACKAGES)
DEBIAN_13 = Recipe(name="debian-13", suite="trixie", packages=PACKAGES)
DEBIAN_13_BACKPORTS = Recipe(
    name="debian-13-backports",
    suite="trixie",
    packages=(SELF_HEALING_KERNEL, *PACKAGES[1:]),
    backports=True,
)

BOOKWORM = System(
    name="bookworm", recipe=DEBIAN_12, differs="Debian 12 as installed: kernel 6.1, cgroup v2, no MGLRU"
)
TRIXIE = System(
    name="trixie", recipe=DEBIAN_13, differs="Debian 13 as installed: kernel 6.12, cgroup v2, MGLRU"
)
BOOKWORM_V1 = System(
    name="bookworm-v1",
    recipe=DEBIAN_12,
    differs="Debian 12 told to use cgroup v1",
    kernel_arguments=("systemd.unified_cgroup_hierarchy=0",),
    cgroup_version=1,
)
BACKPORTS = System(
    name="backports",
    recipe=DEBIAN_13_BACKPORTS,
    differs="Debian 13 with the kernel of its backports, which reparents page cache",
)
BOOKWORM_NO_MEMORY = System(
    name="bookworm-no-memory",
    recipe=DEBIAN_12,
    differs="Debian 12 without a memory controller",
    kernel_arguments=("cgroup_disable=memory",),
)
GUARDED = (BOOKWORM, TRIXIE, BOOKWORM_V1, BACKPORTS)  # where the service runs
SYSTEMS = (*GUARDED, BOOKWORM_NO_MEMORY)  # in the order in which tests boot them
PRECISE = (BOOKWORM, TRIXIE)  # where the guard reclaims behind its shield
