"""The lab makes what it says, where it was told to, and leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab import leak, neighbour
from tests.lab.leak import PAGE_BYTES, Pattern, Refusal, Summary, leaked, memory_mount

pytestmark = pytest.mark.native

MIB = 1 << 20


def stat(cgroup: Path) -> dict[str, int]:
    """`file` and `mapped` bytes of the subtree, the dying included."""
    lines = [line.split() for line in (cgroup / "memory.stat").read_text().splitlines()]
    found = {name: int(value) for name, value in lines}
    if "total_cache" in found:
        return {"file": found["total_cache"], "mapped": found["total_mapped_file"]}
    return {"file": found["file"], "mapped": found["file_mapped"]}


def shows_file_bytes(cgroup: Path, least: int, most: int) -> bool:
    """Waits for the kernel's flush of its per-CPU counters, every 2 s when little has changed."""
    deadline = time.monotonic() + 5
    while not least <= stat(cgroup)["file"] <= most:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def children(cgroup: Path) -> list[Path]:
    return [each for each in cgroup.iterdir() if each.is_dir()]


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, leak.__file__, *map(str, arguments)]


@pytest.mark.parametrize("pattern", list(Pattern))
def test_each_memcg_is_charged_what_was_ordered(own_cgroup: Path, disk_dir: Path, pattern: Pattern) -> None:
    count, size = 50, 4 * PAGE_BYTES
    work_dir = Path(f"/dev/shm/lgtest-{os.getpid()}") if pattern is Pattern.SHMEM else disk_dir / "work"
    with leaked(root=own_cgroup, work_dir=work_dir, count=count, bytes_each=size, pattern=pattern) as summary:
        assert (summary.made, summary.bytes_each) == (count, size)
        assert children(own_cgroup) == []
        assert shows_file_bytes(own_cgroup, count * size * 9 // 10, 2 * count * size)
        assert (stat(own_cgroup)["mapped"] > count * size // 2) == (pattern is Pattern.MAPPED)
    assert not work_dir.exists()
    assert shows_file_bytes(own_cgroup, 0, count * size // 2)


def test_ten_thousand(own_cgroup: Path, disk_dir: Path) -> None:
    with leaked(root=own_cgroup, work_dir=disk_dir / "work", count=10_000) as summary:
        # Half: a host with DAMON's proactive reclaim takes them back while this looks, and on v1,
        # where the whole machine is counted, others that died earlier go meanwhile.
        assert summary.dying_after > 5_000
        assert shows_file_bytes(own_cgroup, 5_000 * PAGE_BYTES, 11_000 * PAGE_BYTES)


def test_nested_ones_all_go_offline(own_cgroup: Path, disk_dir: Path) -> None:
    parent = own_cgroup / "a" / "b"
    with leaked(root=own_cgroup, parent=parent, work_dir=disk_dir / "work", count=20, depth=3) as summary:
        assert summary.made == 60
        assert children(parent) == []
        assert shows_file_bytes(parent, 15 * PAGE_BYTES, MIB)
    assert children(own_cgroup) == []


def test_keep_leaves_files_and_so_the_dying(own_cgroup: Path, disk_dir: Path) -> None:
    work_dir = disk_dir / "work"
    run = command("--root", own_cgroup, "--work-dir", work_dir, "--count", "30", "--keep")
    done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=True)
    assert Summary(**json.loads(done.stdout)).made == 30
    assert shows_file_bytes(own_cgroup, 20 * PAGE_BYTES, MIB)
    (work_dir / "pages").unlink()
    work_dir.rmdir()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["making", "holding"])
def test_a_signal_cleans_up(own_cgroup: Path, disk_dir: Path, number: signal.Signals, moment: str) -> None:
    count = 100_000 if moment == "making" else 10
    run = command("--root", own_cgroup, "--parent", own_cgroup / "p", "--work-dir", disk_dir / "work")
    with subprocess.Popen(
        [*run, "--count", str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        if moment == "holding":
            assert process.stdout.readline()
        else:
            deadline = time.monotonic() + 30
            while not (own_cgroup / "p").exists() or stat(own_cgroup)["file"] < 100 * PAGE_BYTES:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(60) == 128 + number
    assert not (disk_dir / "work").exists()
    assert children(own_cgroup) == []


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"--count": "100000000"}, r"That takes about \d+ MiB of memory, more than half of the \d+ MiB"),
        ({"--count": "1000", "--bytes": str(1 << 40)}, "That takes about"),
        ({"--count": "0"}, "must be at least 1"),
        ({"--depth": "0"}, "must be at least 1"),
        ({"--parent": "{root}/.."}, "is not below the root"),
        ({"--root": "{mount}"}, "is the whole hierarchy"),
        ({"--root": "{root}/none"}, "does not exist"),
        ({"--root": "/proc/self"}, "is not in a cgroup hierarchy with a memory controller"),
        ({"--work-dir": "/dev/shm/lgtest-refused"}, "The pattern read needs a work directory on a disk"),
        ({"--pattern": "shmem"}, "The pattern shmem needs a work directory on a tmpfs"),
        ({"--work-dir": "/var/tmp"}, "exists already"),
        ({"--pattern": "mapped", "--keep": ""}, "--keep cannot go with it"),
    ],
    ids=lambda value: " ".join(map("".join, value.items())) if isinstance(value, dict) else "",
)
def test_refuses_in_one_sentence(
    own_cgroup: Path, disk_dir: Path, changed: dict[str, str], sentence: str
) -> None:
    given = {"--root": "{root}", "--work-dir": str(disk_dir / "work"), **changed}
    mount, _ = memory_mount(own_cgroup)
    words = [word.format(root=own_cgroup, mount=mount) for pair in given.items() for word in pair if word]
    done = subprocess.run(command(*words), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    with pytest.raises(Refusal, match=sentence):
        raise Refusal(done.stderr)
    assert children(own_cgroup) == []


def test_refusal_reaches_the_caller(own_cgroup: Path, disk_dir: Path) -> None:
    with (
        pytest.raises(Refusal, match=r"^Count, bytes and depth must be at least 1\.$"),
        leaked(root=own_cgroup, work_dir=disk_dir / "work", count=0),
    ):
        pass


def test_needs_root(own_cgroup: Path, disk_dir: Path) -> None:
    # Rights are dropped after the import: nobody cannot read a checkout in a home of mode 0700.
    script = (
        "import os, sys; sys.path.insert(0, sys.argv.pop(1)); from tests.lab.leak import main;"
        " os.setgroups([]); os.setuid(65534); sys.exit(main())"
    )
    given = ["--root", str(own_cgroup), "--work-dir", str(disk_dir / "work")]
    done = subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).parents[2]), *given],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (2, "leak.py: Making cgroups needs root.\n")


def test_neighbour_holds_grows_and_shrinks(own_cgroup: Path, disk_dir: Path) -> None:
    live = own_cgroup / "live"
    live.mkdir()
    with neighbour.neighbour(work_dir=disk_dir / "held", size=20 * MIB, cgroup=live) as held:
        assert held.held_bytes == 20 * MIB
        assert shows_file_bytes(live, 20 * MIB, 22 * MIB)
        held.grow(10 * MIB)
        assert shows_file_bytes(live, 30 * MIB, 32 * MIB)
        held.shrink(25 * MIB)
        assert held.held_bytes == 5 * MIB
        assert shows_file_bytes(live, 5 * MIB, 7 * MIB)
    assert not (disk_dir / "held").exists()
