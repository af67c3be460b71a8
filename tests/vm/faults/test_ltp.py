"""LTP's tests of memory cgroups, with the guard stopped and with it at work: the same results.

Debian has no package of it. LOGINDGUARD_LTP names a directory that one was installed to:
`configure --prefix=DIR`, then `make install` in testcases/lib and testcases/kernel/controllers. Those
for the other version of cgroups say so by themselves.
"""

from __future__ import annotations

import io
import os
import re
import tarfile

import pytest

from tests.vm.conftest import on
from tests.vm.faults.conftest import Result
from tests.vm.host import Host
from tests.vm.system import BOOKWORM, BOOKWORM_V1

LTP = os.environ.get("LOGINDGUARD_LTP")
WHERE = "/var/tmp/ltp"
TESTS = (
    *("cgroup_core01", "cgroup_core02", "cgroup_core03", "cgroup_regression_test.sh"),
    *("memcontrol01", "memcontrol02", "memcontrol03", "memcontrol04"),
    *(
        f"memcg_{name}.sh"
        for name in (
            *("failcnt", "force_empty", "limit_in_bytes", "max_usage_in_bytes_test", "stat_rss", "stat_test"),
            *("subgroup_charge", "usage_in_bytes_test", "use_hierarchy_test", "memsw_limit_in_bytes_test"),
            *("move_charge_at_immigrate_test", "regression_test", "control_test"),
        )
    ),
    *("cgroup_fj_function.sh memory", "cgroup_fj_stress.sh memory 3 3 each", "memcg_test_3"),
)
STATUS = {0: "passed", 32: "not for this machine", 124: "too late"}
TEST_SEC = 300
SLOW = 10  # by which its own deadlines are multiplied: the machine is emulated

pytestmark = [
    pytest.mark.load,
    pytest.mark.timeout(len(TESTS) * 2 * TEST_SEC),
    on(BOOKWORM, BOOKWORM_V1),
    pytest.mark.skipif(LTP is None, reason="LOGINDGUARD_LTP names no LTP"),
]


@pytest.fixture
def ltp(host: Host) -> str:
    """Starts one of its tests."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(str(LTP), arcname=".")
    host.machine.run(f"mkdir -p {WHERE} && tar -xz -C {WHERE}", data=packed.getvalue(), timeout_sec=240)
    return (
        f"cd {WHERE} && LTPROOT={WHERE} LTP_TIMEOUT_MUL={SLOW} PATH={WHERE}/testcases/bin:$PATH"
        f" timeout -k 10 {TEST_SEC}"
    )


def test_same_results(host: Host, ltp: str, result: Result) -> None:
    found: dict[str, dict[str, str]] = {}
    for guard in ("stop", "start"):
        with host.settings("sweep:\n  interval: 10s\n  retry_first: 1s\n"):
            host.guard(guard)
            for test in TESTS:
                ended = host.machine.run(f"{ltp} {test} 2>&1", check=False, timeout_sec=TEST_SEC + 120)
                summary = re.findall(r"^(passed|failed|broken) +(\d+)$", ended.stdout, re.MULTILINE)
                told = STATUS.get(ended.status, f"status {ended.status}")
                counted = " ".join(f"{count} {word}" for word, count in summary if count != "0")
                found.setdefault(test, {})[guard] = f"{told}: {counted}" if counted else told
    result(without_and_with={test: [*each.values()] for test, each in found.items()})
    assert [test for test, each in found.items() if each["stop"] != each["start"]] == []
