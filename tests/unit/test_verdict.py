"""The last word on a residue: what its readings name, and what they leave unknown."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from logindguard.kernel.pins import Explained, Kind, Pin
from logindguard.verdict import verdict

KIB, MIB = 1 << 10, 1 << 20


def explained(dying: int | None, held: Mapping[str, int], *, processes: bool = False) -> Explained:
    return Explained(
        path="/user.slice",
        inode=7,
        dying=dying,
        live_children=2,
        processes=processes,
        pins=tuple(Pin(kind=k, held_bytes=held.get(k.value, 0), file="memory.stat") for k in Kind),
    )


@pytest.mark.parametrize(
    ("held", "text"),
    [
        ({"clean": 12 * KIB}, "held by 12K of page cache that the kernel does not give up"),
        ({"dirty": 12 * KIB}, "held by 12K that waits to be written to disk"),
        ({"writeback": 12 * KIB}, "held by 12K that is being written to disk"),
        ({"mapped": 40 * MIB}, "held by 40M that live processes map"),
        ({"shmem": 50 * MIB}, "held by 50M of tmpfs or shared memory"),
        ({"anon": MIB}, "held by 1M of memory of processes that live elsewhere now"),
        ({"swap": MIB}, "held by 1M that is swapped out"),
        (
            {"shmem": 50 * MIB, "mapped": 8 * KIB, "swap": MIB},
            "held by 50M of tmpfs or shared memory, 1M that is swapped out and 8K that live processes map",
        ),
    ],
)
def test_each_kind_is_named_with_most_bytes_first(held: dict[str, int], text: str) -> None:
    found = verdict(explained(3, held))
    assert (found.text, found.unknown) == (text, 0)
    assert set(found.kinds) == set(held)


def test_fewer_pages_than_dying_memcgs_leave_some_unknown_with_the_numbers() -> None:
    found = verdict(explained(10, {"dirty": 8 * KIB, "slab": 3 * MIB, "percpu": MIB, "other": 4 * KIB}))
    assert found.unknown == 8
    assert found.text == (
        "held by 8K that waits to be written to disk; at least 8 dying memcgs by others below, or something"
        " unknown (clean 0B, slab 3M, percpu 1M, kernel 0B, other 4K)"
    )


def test_nothing_charged_is_unknown() -> None:
    found = verdict(explained(2, {"slab": MIB}))
    assert (found.kinds, found.unknown) == ((), 2)
    assert found.text.startswith("held by something unknown: nothing is charged to them (clean 0B, slab 1M,")


def test_kernel_memory_holds_them_before_5_9() -> None:
    found = verdict(explained(2, {"slab": MIB, "kernel": KIB}), kernel_memory_holds=True)
    assert found.kinds == (Kind.SLAB, Kind.KERNEL)
    assert found.text == "held by 1M of slab memory and 1K of kernel memory"


def test_open_sockets_hold_them_on_every_kernel() -> None:
    found = verdict(explained(1, {"slab": MIB, "sock": 4 * KIB}))
    assert (found.kinds, found.unknown) == ((Kind.SOCK,), 0)
    assert found.text == "held by 4K of buffers of sockets that are still open"


def test_a_flusher_that_is_off_is_said() -> None:
    found = verdict(explained(1, {"dirty": MIB}), flusher_off=True)
    assert found.text == "held by 1M that waits to be written to disk (vm.dirty_writeback_centisecs is 0)"


def test_where_nothing_counts_them_nothing_is_concluded_from_pages() -> None:
    assert verdict(explained(None, {"clean": 4 * KIB})).unknown == 0


def test_processes_of_its_own_are_said() -> None:
    found = verdict(explained(1, {"clean": MIB}, processes=True))
    assert found.text.endswith("does not give up, with what its own processes hold among that")
