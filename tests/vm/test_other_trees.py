"""Cgroups that are no login sessions: a user's own units, containers, pods with limits.

What ends there sets off nothing by default, since its like is often started again at once and
finds its page cache then; the sweep takes what is left, here every ten seconds.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import pytest

from logindguard.model import ReclaimRecord
from tests.conftest import Tell
from tests.vm.host import FILES, MIB, READ_BYTES, Host
from tests.vm.machine import wait_until

pytestmark = pytest.mark.timeout(300)

ENDED = 6
LEFT = 1  # what the last one dirtied may need the kernel's own clocks
LIVE_BYTES = 60 * MIB
SWEEPS_OFTEN = """
log_level: debug
sweep:
  interval: 10s
  retry_first: 1s
  cpu_percent: 20
"""
# In a container of podman's or crun's make its processes are one level below the scope; what runs systemd
# inside has cgroups of its own below that.
PAYLOAD = (
    "cg=/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup) && mkdir $cg/container &&"
    " echo $$ >$cg/container/cgroup.procs && echo +memory >$cg/cgroup.subtree_control"
)


@pytest.fixture
def swept(host: Host) -> Iterator[Host]:
    with host.settings(SWEEPS_OFTEN):
        host.mark()
        yield host


def released(host: Host, path: str) -> int:
    """Bytes, once what ENDED cgroups below `path` read is freed and at most LEFT of them are dying."""

    def freed() -> int:
        return sum(record.freed_bytes for record in records())

    def records() -> list[ReclaimRecord]:
        return [each for each in host.records() if each.target == path]

    wait_until(
        lambda: freed() >= ENDED * READ_BYTES * 9 // 10 and host.machine.dying(path) <= LEFT,
        timeout_sec=90,
        what=f"{path} is released",
        every_sec=1,
    )
    assert sum(each.stolen_pages for each in records()) == 0
    return freed()


@contextlib.contextmanager
def scope(host: Host, slice_: str, unit: str, *, properties: str = "") -> Iterator[str]:
    """A live neighbour in a scope below `slice_`, nested as containers are; its cgroup's path."""
    hoard = f"/var/tmp/hoard-{unit}"
    command = (
        f"systemd-run --quiet --scope --slice={slice_} --unit={unit} {properties} -p Delegate=yes sh -c"
        f" '{PAYLOAD} && exec python3 /var/tmp/neighbour.py --work-dir {hoard} --bytes {LIVE_BYTES}'"
    )
    with host.machine.session("root", command) as session:
        session.readline(timeout_sec=120)
        path = host.machine.run(f"systemctl show --property=ControlGroup --value {unit}.scope").stdout.strip()
        yield path


def end_some(host: Host, slice_: str, unit: str, files: str) -> None:
    """ENDED containers below `slice_` that each read a file."""
    host.machine.run(
        f"for n in $(seq 0 {ENDED - 1}); do systemd-run --quiet --scope --slice={slice_} --unit={unit}-$n"
        f" -p Delegate=yes sh -c '{PAYLOAD} && cat {FILES}/{files}-'$n' >/dev/null'; done",
        timeout_sec=120,
    )


def stolen(host: Host, path: str) -> int:
    return host.machine.memory_stat(path)["pgsteal"]


def oom_kills(host: Host, path: str) -> int:
    events = host.machine.read(f"/sys/fs/cgroup{path}/memory.events")
    match = re.search(r"^oom_kill (\d+)$", events, re.MULTILINE)
    assert match is not None
    return int(match[1])


def test_units_of_a_users_own_manager(swept: Host, tell: Tell) -> None:
    """Below user@UID.service, in cgroups that belong to the user, while the session lives."""
    swept.make_files("app", ENDED)
    app_slice = "/user.slice/user-1000.slice/user@1000.service/app.slice"
    live = f"{app_slice}/app-live.service"
    hoard = f"python3 /var/tmp/neighbour.py --work-dir /home/alice/hoard --bytes {LIVE_BYTES}"
    with swept.machine.session("alice", "sh") as session:
        # `tail` keeps the input open that the neighbour ends with.
        session.ask(
            "systemd-run --user --quiet --unit=app-live.service"
            f" sh -c 'tail -f /dev/null | {hoard}' && echo started"
        )
        wait_until(
            lambda: swept.machine.memory_stat(live)["file"] >= LIVE_BYTES,
            timeout_sec=60,
            what="the live unit holds its page cache",
        )
        session.ask(
            f"for n in $(seq 0 {ENDED - 1}); do systemd-run --user --quiet -p Type=oneshot"
            f" --unit=app-ended-$n.service cat {FILES}/app-$n; done; echo ended",
            timeout_sec=120,
        )
        freed_bytes = released(swept, app_slice)
        tell(f"freed {freed_bytes / MIB:.1f} MiB, pgsteal of the live neighbour {stolen(swept, live)}")
        assert stolen(swept, live) == 0
        session.ask("systemctl --user stop app-live.service; echo stopped")


def test_containers_in_machine_slice(swept: Host, tell: Tell) -> None:
    swept.make_files("container", ENDED)
    with scope(swept, "machine.slice", "libpod-live") as live:
        end_some(swept, "machine.slice", "libpod-ended", "container")
        freed_bytes = released(swept, "/machine.slice")
        tell(f"freed {freed_bytes / MIB:.1f} MiB, pgsteal of the live neighbour {stolen(swept, live)}")
        assert stolen(swept, live) == 0
        assert oom_kills(swept, "/machine.slice") == 0


def test_pods_with_limits(swept: Host, tell: Tell) -> None:
    """One pod has room below its memory.max, the other none: there the kernel's own reclaim is near."""
    swept.make_files("roomy", ENDED)
    swept.make_files("tight", ENDED)
    pods = "/kubepods.slice/kubepods-burstable.slice"
    roomy, tight = (f"kubepods-burstable-pod{name}.slice" for name in ("1", "2"))
    swept.machine.run(
        f"systemctl set-property --runtime {roomy} MemoryMax=400M"
        f" && systemctl set-property --runtime {tight} MemoryMax=150M"
    )
    with (
        scope(swept, roomy, "cri-containerd-live1") as live,
        scope(swept, tight, "cri-containerd-live2") as cramped,
    ):
        end_some(swept, roomy, "cri-containerd-ended1", "roomy")
        end_some(swept, tight, "cri-containerd-ended2", "tight")
        freed_bytes = released(swept, f"{pods}/{roomy}")
        tell(f"freed {freed_bytes / MIB:.1f} MiB, pgsteal of the live neighbour {stolen(swept, live)}")
        assert stolen(swept, live) == 0
        told = f"{pods}/{tight}: .*a memory limit above has too little headroom"
        wait_until(
            lambda: re.search(told, swept.machine.journal("-t", "logindguard", "--since", swept.since)),
            timeout_sec=60,
            what="it says why the tight pod is left alone",
        )
        assert swept.machine.dying(f"{pods}/{tight}") >= ENDED
        assert stolen(swept, cramped) == 0
        assert oom_kills(swept, pods) == 0


def test_named_containers_are_released_at_once(host: Host) -> None:
    """As an administrator sets it up who wants that."""
    host.make_files("named", ENDED)
    with host.settings("units:\n  include: [libpod-*.scope]\n"):
        host.mark()
        with scope(host, "machine.slice", "libpod-live") as live:
            end_some(host, "machine.slice", "libpod-ended", "named")
            released(host, "/machine.slice")
            records = [each for each in host.records() if each.target == "/machine.slice"]
            assert {t.unit for r in records for t in r.teardowns} >= {"libpod-ended-0.scope"}
            assert stolen(host, live) == 0
