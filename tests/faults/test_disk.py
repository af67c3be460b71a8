"""A full disk and a read-only one under what the guard keeps: nothing stays raised or half written."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.faults.ground import OWN
from tests.native.launcher import CHECKOUT

pytestmark = pytest.mark.native

FULL, READ_ONLY = "No space left on device", "Read-only file system"


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    command = ["unshare", "--mount", sys.executable, "-m", "tests.faults.disk"]
    ended = subprocess.run(
        [*command, tmp_path_factory.mktemp("disk")], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    answer: dict[str, Any] = json.loads(ended.stdout)
    return answer


@pytest.mark.parametrize(("state", "reason"), [("full", FULL), ("read-only", READ_ONLY)])
def test_nothing_is_shielded_without_a_ledger(told: dict[str, Any], state: str, reason: str) -> None:
    assert told[state]["window"].startswith("LedgerError")
    assert told[state]["window"].endswith(reason)
    assert told[state]["values"] == list(OWN.values())


def test_a_full_disk_holds_no_restore_up(told: dict[str, Any]) -> None:
    assert told["full, after a kill"].startswith("2 put back")


def test_on_a_read_only_one_values_are_put_back_and_the_rest_is_told(told: dict[str, Any]) -> None:
    assert told["read-only, after a kill"].endswith(READ_ONLY)
    assert told["read-only"]["values"] == list(OWN.values())
    assert told["in the end"].startswith("0 put back, 2 changed")  # the ledger was there still, and harmless


@pytest.mark.parametrize(("state", "reason"), [("full", FULL), ("read-only", READ_ONLY)])
def test_what_cannot_be_kept_is_told_and_the_old_stays(told: dict[str, Any], state: str, reason: str) -> None:
    assert told[state]["pause"].startswith("PauseError")
    assert told[state]["pause"].endswith(reason)
    assert told[state]["paused"] == ""
    assert reason in told[state]["textfile"]
    assert told[state]["metrics"] == "old"
    assert told[state]["left"] == ["guard.prom"]


def test_all_is_well_afterwards(told: dict[str, Any]) -> None:
    assert told["window in the end"] == "opened"
    assert told["values in the end"] == list(OWN.values())
