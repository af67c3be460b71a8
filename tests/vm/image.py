"""Builds the disk images of tests/vm/system.py, once per recipe, under build/vm/."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.vm.system import Recipe

CHECKOUT = Path(__file__).resolve().parents[2]
BUILD = CHECKOUT / "build" / "vm"
CUSTOMIZE = Path(__file__).with_name("customize.sh")
TOOLS = ("mmdebstrap", "mkfs.ext4", "mkswap", "ssh", "ssh-keygen", "qemu-system-x86_64", "setpriv")
# mmdebstrap's own apt line for the suite once more, for its backports: from the same mirror, so.
BACKPORTS = (
    'sed -n "s/ {suite} main/ {suite}-backports main/p" "$1"/etc/apt/sources.list'
    ' >"$1"/etc/apt/sources.list.d/backports.list'
)
BUILD_TIMEOUT_SEC = 600
DIGEST_LENGTH = 12


class RigError(Exception):
    """The rig itself cannot work here: a tool is missing, a build or a boot failed."""


@dataclass(frozen=True, slots=True)
class Image:
    """A finished image: read-only, machines write to a throw-away overlay."""

    directory: Path

    @property
    def disk(self) -> Path:
        return self.directory / "disk.img"

    @property
    def swap(self) -> Path:
        return self.directory / "swap.img"

    @property
    def kernel(self) -> Path:
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.directory / "initrd"

    @property
    def key(self) -> Path:
        return self.directory / "key"


def image(recipe: Recipe, *, told: Callable[[str], None] = lambda text: None) -> Image:
    """The image of `recipe`, built first where there is none (30-60 s); raises RigError.

    Two processes that ask at once get the same one: the second waits for the first.
    """
    found = Image(BUILD / f"{recipe.name}-{_digest(recipe)}")
    if found.directory.exists():
        return found
    _check_tools()
    BUILD.mkdir(parents=True, exist_ok=True)
    with _lock(BUILD / f"{recipe.name}.lock"):
        if found.directory.exists():
            return found
        told(f"building the {recipe.name} image with mmdebstrap")
        with tempfile.TemporaryDirectory(dir=BUILD, prefix=f".{recipe.name}-") as scratch:
            _build(recipe, Path(scratch))
            # What was built from an older recipe is of no use to anyone.
            for stale in BUILD.glob(f"{recipe.name}-{'?' * DIGEST_LENGTH}"):
                shutil.rmtree(stale)
            finished = Path(scratch, "image")
            finished.rename(found.directory)
    return found


def _digest(recipe: Recipe) -> str:
    text = repr(recipe).encode() + CUSTOMIZE.read_bytes() + Path(__file__).read_bytes()
    return hashlib.sha256(text).hexdigest()[:DIGEST_LENGTH]


def _check_tools() -> None:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise RigError(f"not installed: {', '.join(missing)}")
    if os.geteuid() != 0:
        raise RigError("building an image needs root: file owners must be real")
    if os.uname().machine != "x86_64":
        raise RigError(f"images are amd64, this machine is {os.uname().machine}")


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(recipe: Recipe, scratch: Path) -> None:
    root, made = scratch / "root", Image(scratch / "image")
    made.directory.mkdir()
    _call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "rig", "-f", str(made.key))
    _call(
        "mmdebstrap",
        "--variant=minbase",
        "--architectures=amd64",
        f"--include={','.join(recipe.packages)}",
        *([f"--setup-hook={BACKPORTS.format(suite=recipe.suite)}"] if recipe.backports else []),
        f'--customize-hook={CUSTOMIZE} "$1" {made.key}.pub',
        recipe.suite,
        str(root),
    )
    shutil.copyfile(root / "vmlinuz", made.kernel)
    shutil.copyfile(root / "initrd.img", made.initrd)
    _call("mkfs.ext4", "-q", "-L", "root", "-d", str(root), str(made.disk), f"{recipe.disk_mib}M")
    with made.swap.open("wb") as file:
        file.truncate(recipe.swap_mib << 20)
    made.swap.chmod(0o600)
    _call("mkswap", "--quiet", str(made.swap))


def _call(*command: str) -> None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=BUILD_TIMEOUT_SEC,
        )
    except subprocess.TimeoutExpired as error:
        raise RigError(f"{command[0]} did not end within {BUILD_TIMEOUT_SEC} s") from error
    if done.returncode != 0:
        raise RigError(f"{command[0]} failed with status {done.returncode}:\n{done.stdout[-4000:]}")
