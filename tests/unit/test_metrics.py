"""The figures as text: what a strict reader of the format makes of them, and how many series there are."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from logindguard.metrics import MAX_SLICES, OTHERS, Figures, exposition
from logindguard.model import Way
from logindguard.statistics import BOUNDS_USEC, Durations
from logindguard.text import span

DOCS = Path(__file__).parents[2] / "docs" / "prometheus"
_SAMPLE = re.compile(r'(logindguard_[a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\]|\\.)*",?)+)\})? (-?[0-9.e+-]+)')
_LABEL = re.compile(r'([a-z]+)="((?:[^"\\]|\\.)*)"')

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def durations(way: Way, *took_usec: int) -> dict[str, Any]:
    booked = Durations()
    for each in took_usec:
        booked.book(each)
    names = [*(f"le_{span(bound)}" for bound in BOUNDS_USEC), "longer"]
    return {"way": str(way), "sum_usec": booked.sum_usec} | dict(zip(names, booked.counts, strict=True))


FIGURES = Figures(
    version="0.1.0",
    mode="precise",
    dying=12,
    residues=[
        ("/user.slice", 2, 4096),
        ("/user.slice/user-1000.slice", 7, 8192),
        ("/system.slice", 3, 0),
    ],
    statistics={
        "teardowns": [{"trigger": "ssh login", "count": 9}, {"trigger": "cron job", "count": 4}],
        "teardowns_shed_total": 0,
        "reclaims": [{"way": "after", "outcome": "released", "count": 5}],
        "freed": [{"way": "after", "bytes": 20480}],
        "stolen_pages_total": 0,
        "refaulted_pages_total": 3,
        "durations": [durations(Way.AFTER, 900, 1_000, 3_000, 700_000, 99_000_000)],
        "cpu_usec_total": 2_500_000,
        "writes_total": 40,
        "longest_write_usec": 4_000,
        "paused_by": [{"why": "request", "usec": 1_500_000}, {"why": "pressure", "usec": 0}],
        "paused": False,
        "last_sweep_usec": 1_767_261_600_500_000,
        "last_sweep_took_usec": 20_000,
    },
)


def parsed(text: str) -> Series:
    """Every line understood; each family once, with HELP and TYPE before its samples."""
    assert text.endswith("\n")
    series: Series = {}
    kinds: dict[str, str] = {}
    family = ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            family = line.split(" ")[2]
            assert family not in kinds
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == family
            kinds[name] = kind
            assert (kind == "counter") == name.endswith("_total")
        else:
            match = _SAMPLE.fullmatch(line)
            assert match is not None, line
            name = match[1]
            if kinds[family] == "histogram":
                name = re.sub(r"_(bucket|sum|count)$", "", name)
            assert name == family
            key = (match[1].removeprefix("logindguard_"), frozenset(_LABEL.findall(match[2] or "")))
            assert key not in series
            series[key] = float(match[3])
    return series


def value(series: Series, name: str, **labels: str) -> float:
    return series[name, frozenset(labels.items())]


def test_every_figure_once_in_base_units() -> None:
    series = parsed(exposition(FIGURES))
    assert value(series, "up") == 1
    assert value(series, "mode", mode="precise") == 1
    assert value(series, "mode", mode="observe") == 0
    assert value(series, "dying_memcgs") == 12
    assert value(series, "slice_dying_memcgs", slice="user.slice") == 9
    assert value(series, "slice_residue_bytes", slice="user.slice") == 12288
    assert value(series, "teardowns_total", trigger="ssh login") == 9
    assert value(series, "reclaims_total", way="after", outcome="released") == 5
    assert value(series, "reclaimed_bytes_total", way="after") == 20480
    assert value(series, "cpu_seconds_total") == 2.5
    assert value(series, "longest_write_seconds") == 0.004
    assert value(series, "paused_seconds_total", why="request") == 1.5
    assert value(series, "last_sweep_timestamp_seconds") == 1767261600.5


def test_buckets_are_cumulative() -> None:
    series = parsed(exposition(FIGURES))
    buckets = {
        dict(labels)["le"]: count
        for (name, labels), count in series.items()
        if name == "reclaim_duration_seconds_bucket"
    }
    assert buckets == {
        "0.001": 2,
        "0.005": 3,
        "0.02": 3,
        "0.1": 3,
        "0.5": 3,
        "2": 4,
        "10": 4,
        "+Inf": 5,
    }
    assert value(series, "reclaim_duration_seconds_count", way="after") == 5
    assert value(series, "reclaim_duration_seconds_sum", way="after") == pytest.approx(99.7049)


def test_where_no_service_runs_there_is_what_the_kernel_tells() -> None:
    series = parsed(exposition(replace(FIGURES, statistics={}, up=False)))
    assert value(series, "up") == 0
    names = {name for name, _ in series}
    assert names == {
        *("up", "info", "mode", "dying_memcgs", "slice_dying_memcgs", "slice_residue_bytes"),
    }


def test_what_is_not_counted_by_cgroup_is_left_out() -> None:
    series = parsed(exposition(replace(FIGURES, residues=[("/user.slice", None, 4096)])))
    assert not any(name == "slice_dying_memcgs" for name, _ in series)
    assert value(series, "slice_residue_bytes", slice="user.slice") == 4096


def test_many_slices_are_few_series_and_lose_nothing() -> None:
    residues = [(f"/made-up-{at}.slice", at, 10 * at) for at in range(100)]
    series = parsed(exposition(replace(FIGURES, residues=residues)))
    dying = [count for (name, _), count in series.items() if name == "slice_dying_memcgs"]
    assert len(dying) == MAX_SLICES + 1
    assert sum(dying) == sum(range(100))
    assert value(series, "slice_dying_memcgs", slice="made-up-99.slice") == 99
    assert value(series, "slice_residue_bytes", slice=OTHERS) == 10 * sum(range(100 - MAX_SLICES))


@pytest.mark.parametrize("end", ["\n", "\r", "\x85", "\u2028", "\udcff", "\x1b[2J", "\\"])
def test_a_slice_cannot_forge_a_line(end: str) -> None:
    name = f'x"}} 1{end}logindguard_up{{y="\\.slice'
    text = exposition(replace(FIGURES, residues=[(f"/{name}", 1, 1)]))
    assert text.replace("\n", "").isprintable()
    series = parsed(text)
    assert value(series, "up") == 1
    [shown] = [dict(labels)["slice"] for name, labels in series if name == "slice_dying_memcgs"]
    assert not re.search(r'(?<!\\)(?:\\\\)*\\[^\\"n]', shown)  # a reader refuses any other escape


@pytest.mark.parametrize("name", ["logindguard.rules.yaml", "grafana-dashboard.json"])
def test_rules_and_dashboard_ask_for_what_there_is(name: str) -> None:
    text = (DOCS / name).read_text()
    if name.endswith(".json"):
        text = json.dumps(
            [target["expr"] for panel in json.loads(text)["panels"] for target in panel["targets"]]
        )
    asked = set(re.findall(r"\b(logindguard_[a-z_]+)", text))
    there = {f"logindguard_{name}" for name, _ in parsed(exposition(FIGURES))}
    assert asked
    assert asked <= there
