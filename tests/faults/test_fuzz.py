"""Settings and control files of any content: a documented error, or a result that makes sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

from logindguard.config import Config
from logindguard.config_file import ConfigError, load
from logindguard.config_values import ORDERED, RULES, SECTIONS
from logindguard.kernel.cgroupfs import PAGE_BYTES, Cgroup, KernelError
from logindguard.kernel.pressure import read_host_memory, read_signs, some_percent
from logindguard.kernel.v1_count import DyingCount
from logindguard.kernel.v1_stat import read_stat, usage_bytes
from logindguard.kernel.writeback import read_clocks
from tests.faults import kernfs
from tests.faults.conftest import FULL
from tests.faults.ground import PARENT, TYPED, Ground, ground_in, noted
from tests.faults.result import CHECKOUT, Keep
from tests.unit.fake_cgroupfs import FakeTree

# What it works out of Unicode once; not into the checkout.
set_hypothesis_home_dir(str(CHECKOUT / "build/hypothesis"))  # type: ignore[no-untyped-call]

pytestmark = pytest.mark.timeout(1800 if FULL else 300)

# The same cases each time, so that a machine that is busy decides on nothing; more of them in full.
fuzz = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=10_000 if FULL else 300,
    suppress_health_check=list(HealthCheck),
)
few = settings(fuzz, max_examples=2_000 if FULL else 100)

KEYS = [key.rpartition(".")[2] for key in RULES] + list(SECTIONS)
words = st.sampled_from(
    [
        *("yes", "no", "on", "~", "null", "0", "1", "-1", "5s", "300ms", "64M", "1.5G", "50%", "10%", "1e9"),
        *("99999999999999999999", "0x10", "010", "1:30", "/", "/a", "/../a", "[/]", "[]", "{}", "*.scope"),
        *(
            '"a\\tb"',
            "'",
            '"',
            "!!python/object:os.system",
            "&a [*a]",
            "*a",
            "<<: {}",
            "debug",
            "|",
            ">",
            "- a",
        ),
        *(
            "session-*.scope",
            "[session-*.scope, 'cron-*']",
            "%",
            "@",
            "`",
            "\ufeff",
            "\x00",
            "\ud7ff",
            "\u2028",
        ),
    ]
)
values = st.one_of(words, st.text(max_size=12), st.integers().map(str), st.floats().map(str))
keys = st.one_of(st.sampled_from(KEYS), st.sampled_from(KEYS), st.text(max_size=8))
lines = st.tuples(st.integers(0, 3), keys, values).map(lambda line: f"{'  ' * line[0]}{line[1]}: {line[2]}")
sections = st.tuples(
    st.sampled_from([*SECTIONS, "units", "x"]), st.lists(st.tuples(keys, values), max_size=4)
).map(lambda part: "\n".join([f"{part[0]}:", *(f"  {key}: {value}" for key, value in part[1])]))
documents = st.one_of(
    st.lists(st.one_of(sections, lines), max_size=6).map("\n".join),
    st.lists(lines, max_size=6).map("\n".join),
    st.text(max_size=200),
).map(lambda text: text.encode("utf-8", "surrogatepass"))
anything = st.one_of(documents, documents, documents, st.binary(max_size=200))


def check_settings(config: Config) -> None:
    for key, rule in RULES.items():
        part: Any = getattr(config, rule.section) if rule.section else config
        value = getattr(part, rule.field)
        for each in value if rule.many else [value]:
            shown = rule.kind.show(each)
            assert rule.parse(shown) == each or isinstance(each, float), (key, shown)
    for low, relation, high in ORDERED:
        at_most, least = [
            getattr(getattr(config, RULES[key].section or ""), RULES[key].field) for key in (low, high)
        ]
        assert at_most < least or (relation == "at most" and at_most == least)


def check_document(directory: Path, *documents: bytes) -> bool:
    """Whether they were taken; else their error is one line with its place."""
    file, dropins = directory / "config.yaml", directory / "config.d"
    dropins.mkdir(exist_ok=True)
    for path, document in zip((file, dropins / "a.yaml"), documents, strict=False):
        path.write_bytes(document)
    try:
        loaded = load(file, dropins)
    except ConfigError as error:
        sentence = str(error)
    else:
        check_settings(loaded.config)
        return True
    assert sentence.startswith(str(directory))
    assert sentence.isprintable()
    assert len(sentence) < 2_000
    return False


def test_settings_of_any_content(tmp_path: Path, keep: Keep) -> None:
    taken = tried = 0

    @fuzz
    @given(anything)
    def check(document: bytes) -> None:
        nonlocal taken, tried
        tried += 1
        taken += check_document(tmp_path, document)

    check()
    assert 0 < taken < tried
    keep("settings_fuzz", {"documents": tried, "taken": taken, "refused_with_their_place": tried - taken})


def test_settings_that_do_not_fit_together(tmp_path: Path) -> None:
    @few
    @given(documents, documents)
    def check(first: bytes, second: bytes) -> None:
        check_document(tmp_path, first, second)

    check()


# Control files

numbers = st.one_of(st.integers(0, 1 << 40), st.integers(), st.just(1 << 63), st.just((1 << 64) - 1)).map(str)
stat_keys = st.sampled_from(
    [
        *("anon", "file", "file_mapped", "file_dirty", "file_writeback", "shmem", "pgsteal", "pgpgin"),
        *("workingset_refault_file", "nr_dying_descendants", "populated", "cache", "total_cache"),
    ]
)
contents = st.one_of(
    st.lists(st.tuples(stat_keys, numbers).map(" ".join), max_size=12).map("\n".join),
    numbers,
    st.just("max"),
    st.text(max_size=40),
).map(lambda text: text.encode("utf-8", "surrogateescape"))
FILES = st.sampled_from(
    [
        *("cgroup.stat", "memory.stat", "memory.current", "memory.min", "memory.max", "memory.high"),
        *("cgroup.events", "cgroup.controllers", "cgroup.subtree_control", "memory.swap.max"),
    ]
)


def test_control_files_of_any_content(tmp_path: Path) -> None:
    ground = ground_in(tmp_path)
    plain = Cgroup.write
    children = [entry.name for entry in ground.tree.directory(PARENT).iterdir() if entry.is_dir()]

    @few
    @given(st.sampled_from([".", *children]), FILES, contents)
    def check(where: str, file: str, content: bytes) -> None:
        check_ground(ground, ground.tree.directory(PARENT) / where / file, content)

    Cgroup.write = noted(ground)  # type: ignore[assignment,method-assign]
    try:
        check()
    finally:
        Cgroup.write = plain  # type: ignore[method-assign]


def means(content: bytes) -> object:
    """The value of a limit, in pages; what is none stands for itself."""
    text = content.decode("ascii", "replace").strip()  # which strips more than bytes do
    try:
        return int(text) // PAGE_BYTES
    except ValueError:
        return text


def check_ground(ground: Ground, path: Path, content: bytes) -> None:
    before = path.read_bytes()
    path.write_bytes(content)
    ground.writes.clear()
    errors = ground.run()
    assert all(isinstance(error, TYPED) for error in errors)
    kept = path.read_bytes()
    assert path.name not in kernfs.LIMITS or means(kept) == means(content)
    path.write_bytes(before)
    assert ground.wrong() == []


def test_other_kernel_files_of_any_content(tmp_path: Path) -> None:
    (tmp_path / "cgroup").mkdir()
    tree = FakeTree(tmp_path / "cgroup")
    proc = tmp_path / "proc"
    (proc / "pressure").mkdir(parents=True)
    (proc / "self").mkdir()
    (proc / "sys/vm").mkdir(parents=True)
    names = (
        *("meminfo", "cgroups", "pressure/memory", "pressure/cpu", "vmstat", "self/mounts"),
        *("sys/vm/dirty_expire_centisecs", "sys/vm/dirty_writeback_centisecs"),
    )
    heads = st.sampled_from(
        [
            *("MemFree:", "MemAvailable: ", "SwapTotal:", "memory ", "memory", "some avg10=", "some ", ""),
            *("pswpin ", "pswpout", "a b ext4 commit=", "a b ext4 rw,commit="),
        ]
    )
    texts = st.lists(st.tuples(heads, contents), max_size=4).map(
        lambda parts: b"\n".join(head.encode() + content for head, content in parts)
    )

    @fuzz
    @given(texts, contents)
    def check(text: bytes, stat: bytes) -> None:
        for name in names:
            (proc / name).write_bytes(text)
        for name in ("memory.stat", "memory.usage_in_bytes"):
            (tmp_path / "cgroup" / name).write_bytes(stat)
        with tree.hierarchy.open("/") as cgroup:
            for ask in (
                lambda: read_host_memory(proc),
                DyingCount(tree.hierarchy, proc).total,
                lambda: read_stat(cgroup),
                lambda: usage_bytes(cgroup),
            ):
                try:
                    ask()
                except KernelError as error:
                    assert str(error)  # noqa: PT017  # any of them will do
        read_signs(proc)  # these two never raise
        read_clocks(proc)
        percent = some_percent("memory", proc)
        assert percent is None or 0 <= percent <= 100

    check()
