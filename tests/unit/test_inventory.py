"""Single dying memcgs, out of the text that MGLRU's debugfs gives, in both of its forms."""

from __future__ import annotations

from pathlib import Path

import pytest

from logindguard.kernel.cgroupfs import PAGE_BYTES
from logindguard.kernel.inventory import FILE, DyingMemcg, NoInventory, dying_memcgs

OFFLINE = "/user.slice/user-1000.slice/session-3.scope"
# As lru_gen_seq_show of Linux 6.12 writes it, on two nodes.
PRIVATE = f"""\
memcg     1 /
 node     0
          0     100000          0        500 
          1      50000         20          7 
memcg    27 /user.slice
 node     0
          0     100000          0          3 
memcg     0 {OFFLINE}
 node     0
          0     100000          1          8 
          1      50000          0          4 
 node     1
          0     100000          2         16 
memcg     0 /system.slice/with a blank.service
 node     0
          0     100000          0          0 
"""  # noqa: W291
# As later kernels do: the public id, which a removed cgroup keeps, and its path may be another's again.
PUBLIC = """\
memcg 1 /
 node     0
          0     100000          0        500
memcg 4711 /user.slice
 node     0
          0     100000          0          3
memcg 815 /user.slice/a.scope
 node     0
          0     100000          0          2
memcg 816 /user.slice/gone.scope
 node     0
          0     100000          0          1
"""
LIVE = {"/": 1, "/user.slice": 4711, "/user.slice/a.scope": 900}


def inventory(sys: Path, text: str) -> list[DyingMemcg]:
    path = sys / FILE
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return dying_memcgs(sys, LIVE.get)


def test_private_ids_are_0_at_the_end(tmp_path: Path) -> None:
    assert inventory(tmp_path, PRIVATE) == [
        DyingMemcg(OFFLINE, 28 * PAGE_BYTES, 3 * PAGE_BYTES),
        DyingMemcg("/system.slice/with a blank.service", 0, 0),
    ]


def test_public_ids_are_those_of_live_cgroups_or_not(tmp_path: Path) -> None:
    assert inventory(tmp_path, PUBLIC) == [
        DyingMemcg("/user.slice/a.scope", 2 * PAGE_BYTES, 0),
        DyingMemcg("/user.slice/gone.scope", PAGE_BYTES, 0),
    ]


def test_lines_of_another_form_are_passed_over(tmp_path: Path) -> None:
    text = PRIVATE.replace(" 1          8", " 1x 8 9") + "           what 1 2 3 4 5\n"
    assert inventory(tmp_path, text)[0].file_bytes == 20 * PAGE_BYTES
    assert dying_memcgs(tmp_path, LIVE.get)[0].path == OFFLINE


def test_a_name_may_end_with_a_blank_and_a_number_may_be_none(tmp_path: Path) -> None:
    live = "/user.slice/blank "
    text = PUBLIC + f"memcg 900 {live}\nmemcg x /user.slice/odd.scope\nmemcg\nmemcg \n"
    path = tmp_path / FILE
    path.parent.mkdir(parents=True)
    path.write_text(text)
    found = dying_memcgs(tmp_path, (LIVE | {live: 900}).get)
    assert [each.path for each in found] == ["/user.slice/a.scope", "/user.slice/gone.scope"]


def test_a_name_cannot_forge_a_line(tmp_path: Path) -> None:
    live = "/user.slice/a\rmemcg     0 /system.slice/forged.service"
    path = tmp_path / FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(f"{PRIVATE}memcg    30 {live}\n".encode())
    assert {each.path for each in dying_memcgs(tmp_path, LIVE.get)} == {
        OFFLINE,
        "/system.slice/with a blank.service",
    }


def test_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(NoInventory, match="only by MGLRU"):
        dying_memcgs(tmp_path, LIVE.get)
    (tmp_path / FILE).mkdir(parents=True)
    with pytest.raises(NoInventory, match="cannot be read: Is a directory"):
        dying_memcgs(tmp_path, LIVE.get)
