#!/usr/bin/python3
"""A process under a memory limit that grows and shrinks at random while it reads a file: never too much.

    tight.py --file FILE --most BYTES --seed N

Its anonymous memory goes between a tenth of BYTES and BYTES, by jumps. Runs until it is killed.

Standard library only: it is copied into machines and run there.
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import time


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--file", required=True)
    parser.add_argument("--most", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    given = parser.parse_args()
    chance = random.Random(given.seed)
    descriptor = os.open(given.file, os.O_RDONLY)
    size = os.fstat(descriptor).st_size
    while True:
        area = mmap.mmap(-1, chance.randrange(given.most // 10, given.most))
        for offset in range(0, len(area), mmap.PAGESIZE):
            area[offset] = 1
        start = chance.randrange(size)
        os.pread(descriptor, min(8 << 20, size - start), start)
        time.sleep(chance.random() * 0.2)
        area.close()
        time.sleep(chance.random() * 0.2)


if __name__ == "__main__":
    main()
