"""Tables of what benches came to, for docs/benchmarks.md: `python3 -m tests.bench.table` writes it anew."""

from __future__ import annotations

from pathlib import Path

from tests.bench.result import CHECKOUT, Result, Value, read

PAGE = CHECKOUT / "docs" / "benchmarks.md"
HEAD = """\
# Benchmarks

Made by `make bench` (on the machine itself) and `make bench-vm` (in a virtual machine, whose CPUs are
emulated where there is no KVM); each bench compares its sides in one run. `python3 -m tests.bench.table`
writes this page from the JSON files beside it. CPU time is that of the rival's process; "system of host"
is all CPUs' system time meanwhile, since the kernel frees memcgs in kworkers. A miss is said to be one.
"""


def show(result: Result) -> str:
    """One bench as Markdown."""
    machine = result.machine
    figures = list(dict.fromkeys(name for side in result.sides for name in side.figures))
    lines = [
        f"## {result.bench}: {machine['kernel']}, cgroup {machine['cgroup']}",
        "",
        f"{result.about}.",
        f"{machine['cpus']} CPUs ({machine['cpu']}), {machine['memory_mib']} MiB; commit {result.commit},"
        f" {result.date}; load {result.load_before:.1f} before, {result.load_after:.1f} after.",
        "",
        _row(["", *(side.rival for side in result.sides)]),
        _row(["---"] * (len(result.sides) + 1)),
    ]
    lines += [
        _row([_words(name), *(_value(side.figures.get(name)) for side in result.sides)]) for name in figures
    ]
    bounds = list(dict.fromkeys(bound for side in result.sides for bound in side.calls))
    bounds.sort(key=lambda bound: (int(bound.split()[1]), bound[0] == ">"))
    lines += [
        _row(
            [f"calls that took {bound} us of CPU", *(str(side.calls.get(bound, 0)) for side in result.sides)]
        )
        for bound in bounds
    ]
    lines += ["", _row(["bar", "found", ""]), _row(["---"] * 3)]
    lines += [_row([bar.wanted, bar.found, "met" if bar.met else "**missed**"]) for bar in result.bars]
    return "\n".join(lines)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _words(name: str) -> str:
    """A figure's name with its unit behind it: "cpu_msec" as "cpu, ms"."""
    for suffix, unit in (("_usec", "us"), ("_msec", "ms"), ("_sec", "s"), ("_percent", "%"), ("_mib", "MiB")):
        if name.endswith(suffix):
            return f"{name.removesuffix(suffix).replace('_', ' ')}, {unit}"
    return name.replace("_", " ")


def _value(value: Value) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def write_tables(directory: Path, page: Path = PAGE) -> None:
    results = [read(path) for path in sorted(directory.glob("*.json"))]
    page.write_text("\n\n".join([HEAD.rstrip(), *map(show, results)]) + "\n")


if __name__ == "__main__":
    write_tables(PAGE.with_suffix(""))
