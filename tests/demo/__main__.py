"""What `make demo` runs: the guard on this machine's own kernel, then in a freshly booted Debian."""

from __future__ import annotations

import os
import sys

from tests.demo import native, vm

INTERRUPTED = 128


def main() -> int:
    """0 when neither failed; a machine on which the first cannot be shown has the second all the same."""
    print("1. The guard on this machine\n", flush=True)
    here = native.main([])
    if here > INTERRUPTED:
        return here
    print("\n2. The guard in a virtual machine: Debian 12, ssh logins, systemd\n", flush=True)
    there = vm.main([])
    return there or (0 if here == os.EX_UNAVAILABLE else here)


if __name__ == "__main__":
    sys.exit(main())
