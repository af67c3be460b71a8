"""The settings: what may be written, where each value came from, and the sentence for every mistake."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest

from logindguard import config_file
from logindguard.config import MIB, SEC, Config, PressureSettings, ReclaimSettings, SweepSettings, Units
from logindguard.config_file import ConfigError, load
from logindguard.config_values import RANGES, RULES, SWITCH, TEXTFILE, parse_size, parse_span


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def read(file: Path, text: str | bytes) -> Config:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(file, None).config


def message(file: Path, text: str | bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        read(file, text)
    return str(caught.value).replace(f"{file}", "FILE")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "# nothing\n",
        "---\n",
        "{}",
        "~",
        "teardown:\n",
        "teardown: {}\nsweep: ~\n",
        "\ufeff# a mark\n",
    ],
)
def test_nothing_said_means_the_defaults(file: Path, text: str) -> None:
    assert read(file, text) == Config()


def test_every_kind_of_setting(file: Path) -> None:
    text = """\
        roots: [/user.slice, /system.slice/cron.service]
        log_level: debug
        units:
          include:
            - session-*.scope
            - 'app-[0-9]*.scope'
          exclude: []
        teardown: {settle: 0, settle_max: 1min 0.5s}
        reclaim:
          keep_mapped_above: 1.5M
          min_headroom: 134217728
          shared: on
          shared_ratio: 0.25
          write: 2ms
          window: 50ms
        sweep:
          interval: 1h 30min
          cpu_percent: 0.5%
          grace_dying: 0
        pressure:
          pause_percent: 20
          resume_percent: 7.5
        """
    with pytest.raises(
        ConfigError, match=r"teardown\.settle_max expects .* from 0s to 1min, not '1min 0\.5s'"
    ):
        read(file, text)
    assert read(file, text.replace("1min 0.5s", "1s 500ms")) == Config(
        roots=("/user.slice", "/system.slice/cron.service"),
        log_level="debug",
        units=Units(include=("session-*.scope", "app-[0-9]*.scope"), exclude=()),
        teardown=replace(Config().teardown, settle_usec=0, settle_max_usec=1_500_000),
        reclaim=replace(
            ReclaimSettings(),
            keep_mapped_above_bytes=3 * MIB // 2,
            min_headroom_bytes=128 * MIB,
            shared=True,
            shared_ratio=0.25,
            write_usec=2_000,
            window_usec=50_000,
        ),
        sweep=replace(SweepSettings(), interval_usec=5400 * SEC, cpu_percent=0.5, grace_dying=0),
        pressure=PressureSettings(pause_percent=20.0, resume_percent=7.5),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # keys
        ("setle: 1s", "FILE:1: unknown key 'setle'; did you mean teardown.settle?"),
        ("settle: 1s", "FILE:1: unknown key 'settle'; did you mean teardown.settle?"),
        (
            "\nteardown:\n  setle: 1s\n",
            "FILE:3: unknown key 'teardown.setle'; did you mean teardown.settle?",
        ),
        (
            "teardown:\n  settle_usec: 300000\n",
            "FILE:2: unknown key 'teardown.settle_usec'; did you mean teardown.settle?",
        ),
        ("sweep:\n  window: 9ms\n", "FILE:2: unknown key 'sweep.window'; did you mean reclaim.window?"),
        ("sweeps: {}\n", "FILE:1: unknown key 'sweeps'; did you mean sweep?"),
        ("colour: red\n", "FILE:1: unknown key 'colour'."),
        ("on: 1\n", "FILE:1: unknown key 'on'."),
        ("<<: {roots: []}\n", "FILE:1: unknown key '<<'."),
        ('"a\\nb\\e[1m": 1\n', "FILE:1: unknown key 'a\\nb\\x1b[1m'."),
        ("? [a, b]\n: 1\n", "FILE:1: expects a plain word as a key, not a sequence."),
        (
            "teardown:\n  settle: 1s\n  settle: 2s\n",
            "FILE:3: teardown.settle is given twice, first on line 2.",
        ),
        ("sweep: {}\nroots: []\nsweep: {}\n", "FILE:3: sweep is given twice, first on line 1."),
        # sections
        (
            "teardown: 1s\n",
            "FILE:1: teardown expects settings as 'key: value' "
            "(after, settle, settle_max, hook_deadline), not '1s'.",
        ),
        (
            "pressure:\n- pause_percent: 3\n",
            "FILE:2: pressure expects settings as 'key: value' (pause_percent, resume_percent), "
            "not a sequence.",
        ),
        (
            "just words\n",
            "FILE:1: the file expects settings as 'key: value' "
            "(units, teardown, reclaim, sweep, pressure, metrics, roots, log_level), not 'just words'.",
        ),
        # a file
        (
            "metrics: {textfile: /run/x.txt}\n",
            "FILE:1: metrics.textfile expects off, or the absolute path of a file that ends in .prom, "
            "not '/run/x.txt'.",
        ),
        (
            "metrics: {textfile: /run/../x.prom}\n",
            "FILE:1: metrics.textfile expects off, or the absolute path of a file that ends in .prom, "
            "not '/run/../x.prom'.",
        ),
        # switches and ratios
        ("reclaim: {shared: maybe}\n", "FILE:1: reclaim.shared expects yes or no, not 'maybe'."),
        ("reclaim: {shared: 1}\n", "FILE:1: reclaim.shared expects yes or no, not '1'."),
        (
            "reclaim: {shared_ratio: 10%}\n",
            "FILE:1: reclaim.shared_ratio expects a number from 0 to 1, not '10%'.",
        ),
        # durations
        (
            "teardown:\n  settle: 300\n",
            "FILE:2: teardown.settle expects a duration with its unit from 0s to 10s, not '300'.",
        ),
        (
            "teardown: {settle: fast}\n",
            "FILE:1: teardown.settle expects a duration with its unit from 0s to 10s, not 'fast'.",
        ),
        (
            "teardown:\n  settle: 11s\n",
            "FILE:2: teardown.settle expects a duration with its unit from 0s to 10s, not '11s'.",
        ),
        (
            "teardown:\n  settle: -1s\n",
            "FILE:2: teardown.settle expects a duration with its unit from 0s to 10s, not '-1s'.",
        ),
        (
            "teardown:\n  settle:\n",
            "FILE:2: teardown.settle expects a duration with its unit from 0s to 10s, not nothing.",
        ),
        (
            "teardown:\n  settle:\n    quiet: 1s\n",
            "FILE:3: teardown.settle expects a duration with its unit from 0s to 10s, not a mapping.",
        ),
        (
            "reclaim: {window: 5ms}\n",
            "FILE:1: reclaim.window expects a duration with its unit from 10ms to 1s, not '5ms'.",
        ),
        (
            "reclaim: {write: 1s}\n",
            "FILE:1: reclaim.write expects a duration with its unit from 500us to 100ms, not '1s'.",
        ),
        (
            "sweep: {interval: 1y}\n",
            "FILE:1: sweep.interval expects a duration with its unit from 10s to 1d, not '1y'.",
        ),
        # sizes
        (
            "reclaim:\n  keep_mapped_above: 1MB5\n",
            "FILE:2: reclaim.keep_mapped_above expects a size from 0B to 1T, not '1MB5'.",
        ),
        (
            "reclaim:\n  min_headroom: 1M\n",
            "FILE:2: reclaim.min_headroom expects a size from 4M to 1T, not '1M'.",
        ),
        (
            "reclaim:\n  min_headroom: yes\n",
            "FILE:2: reclaim.min_headroom expects a size from 4M to 1T, not 'yes'.",
        ),
        # numbers
        (
            "sweep: {cpu_percent: 0}\n",
            "FILE:1: sweep.cpu_percent expects a number of percent from 0.1 to 100, not '0'.",
        ),
        (
            "sweep: {cpu_percent: 101}\n",
            "FILE:1: sweep.cpu_percent expects a number of percent from 0.1 to 100, not '101'.",
        ),
        (
            "sweep: {cpu_percent: .nan}\n",
            "FILE:1: sweep.cpu_percent expects a number of percent from 0.1 to 100, not '.nan'.",
        ),
        (
            "sweep: {grace_dying: 1.5}\n",
            "FILE:1: sweep.grace_dying expects a whole number from 0 to 100000000, not '1.5'.",
        ),
        (
            f"sweep: {{grace_dying: {'9' * 99}}}\n",
            f"FILE:1: sweep.grace_dying expects a whole number from 0 to 100000000, not '{'9' * 60}…'.",
        ),
        (
            "log_level: loud\n",
            "FILE:1: log_level expects one of debug, info, warning, error, not 'loud'.",
        ),
        (
            "log_level: [info]\n",
            "FILE:1: log_level expects one of debug, info, warning, error, not a sequence.",
        ),
        # lists
        (
            "units:\n  include:\n  - a*.scope\n  - a/b.scope\n",
            "FILE:4: units.include expects a list of globs over unit names such as session-*.scope, "
            "not 'a/b.scope'.",
        ),
        (
            "units: {exclude: cron.service}\n",
            "FILE:1: units.exclude expects a list of globs over unit names such as session-*.scope, "
            "not 'cron.service'.",
        ),
        (
            "units: {exclude: ['{a,b}.scope']}\n",
            "FILE:1: units.exclude expects a list of globs over unit names such as session-*.scope, "
            "not '{a,b}.scope'.",
        ),
        (
            "units: {exclude: ['']}\n",
            "FILE:1: units.exclude expects a list of globs over unit names such as session-*.scope, not ''.",
        ),
        *(
            (
                f"roots:\n- /user.slice\n- {written}\n",
                "FILE:3: roots expects a list of cgroup paths such as /user.slice, absolute and without "
                f"'.', '..' or empty parts, not {shown}.",
            )
            for written, shown in [
                ("user.slice", "'user.slice'"),
                ("/user.slice/", "'/user.slice/'"),
                ("//user.slice", "'//user.slice'"),
                ("/user.slice/../system.slice", "'/user.slice/../system.slice'"),
                ("/./user.slice", "'/./user.slice'"),
                ('"/user\\0slice"', "'/user\\x00slice'"),
                ('"/user\\nslice"', "'/user\\nslice'"),
                ("''", "''"),
                ("~", "nothing"),
                ("[/a]", "a sequence"),
            ]
        ),
        # An empty `roots:` must not widen the guard to the whole machine.
        (
            "roots:\n",
            "FILE:1: roots expects a list of cgroup paths such as /user.slice, absolute and without "
            "'.', '..' or empty parts, not nothing.",
        ),
        # together
        (
            "pressure:\n  resume_percent: 10\n",
            "FILE:2: pressure.resume_percent (10) must be below pressure.pause_percent (10).",
        ),
        (
            "pressure:\n  pause_percent: 4\n",
            "FILE:2: pressure.resume_percent (5) must be below pressure.pause_percent (4).",
        ),
        (
            "teardown:\n  settle: 2s\n",
            "FILE:2: teardown.settle (2s) must be at most teardown.settle_max (1s).",
        ),
        (
            "reclaim:\n  write: 50ms\n  window: 20ms\n",
            "FILE:2: reclaim.write (50ms) must be at most reclaim.window (20ms).",
        ),
        (
            "sweep:\n  retry_max: 4s\n",
            "FILE:2: sweep.retry_first (5s) must be at most sweep.retry_max (4s).",
        ),
        # the text itself
        (
            "teardown: {settle: 1s\n",
            "FILE:2: is not valid YAML: expected ',' or '}', but got '<stream end>'.",
        ),
        (
            "teardown:\n\tsettle: 1s\n",
            "FILE:2: is not valid YAML: found character '\\t' that cannot start any token.",
        ),
        ("roots: []\n---\nroots: []\n", "FILE:2: is not valid YAML: but found another document."),
        ("roots: []\n\x07\n", "FILE:2: holds a character that YAML does not allow: '\\x07'."),
        (b"roots: []\nlog_level: \xff\n", "FILE:2: is not UTF-8 text: byte 0xff."),
        ("roots: []\nunits: &a {}\n", "FILE:2: YAML anchors and aliases are not accepted."),
        ("roots: []\nunits: *a\n", "FILE:2: YAML anchors and aliases are not accepted."),
        ("\n" + "[" * 60_000, "FILE:2: is nested deeper than any setting."),
        ("#" * (64 << 10) + "\n", "FILE: is larger than 64K, which no settings are."),
        (
            "log_level: !!python/object/apply:os.system ['true']\n",
            "FILE:1: log_level expects one of debug, info, warning, error, not a sequence.",
        ),
    ],
)
def test_a_mistake_is_one_sentence_with_its_place(file: Path, text: str | bytes, expected: str) -> None:
    assert message(file, text) == expected


def test_an_error_carries_file_line_and_key(file: Path) -> None:
    file.write_text("\nteardown:\n  settle: x\n")
    with pytest.raises(ConfigError) as caught:
        load(file, None)
    assert (caught.value.file, caught.value.line, caught.value.key) == (file, 3, "teardown.settle")


def test_dropins_replace_single_settings_in_lexical_order(tmp_path: Path, file: Path) -> None:
    dropins = tmp_path / "config.d"
    dropins.mkdir()
    file.write_text("roots: [/a, /b]\nteardown:\n  settle: 100ms\n  settle_max: 2s\n")
    (dropins / "20-b.yaml").write_text("teardown:\n  settle: 200ms\n")
    (dropins / "10-a.yaml").write_text("teardown:\n  settle: 150ms\nroots: [/c]\n")
    (dropins / ".hidden.yaml").write_text("nonsense")
    (dropins / "30-c.yaml.dpkg-old").write_text("nonsense")
    loaded = load(file, dropins)
    assert loaded.config.roots == ("/c",)
    assert loaded.config.teardown.settle_usec == 200_000
    assert loaded.config.teardown.settle_max_usec == 2 * SEC
    assert loaded.origins["roots"] == f"{dropins}/10-a.yaml:3"
    assert loaded.origins["teardown.settle"] == f"{dropins}/20-b.yaml:2"
    assert loaded.origins["teardown.settle_max"] == f"{file}:4"
    assert loaded.origins["sweep.interval"] == "default"
    assert loaded.origins.keys() == RULES.keys()


def test_what_fits_alone_may_not_fit_together_across_files(tmp_path: Path, file: Path) -> None:
    dropins = tmp_path / "config.d"
    dropins.mkdir()
    file.write_text("teardown:\n  settle_max: 100ms\n  settle: 50ms\n")
    (dropins / "1.yaml").write_text("\nteardown: {settle: 500ms}\n")
    with pytest.raises(ConfigError) as caught:
        load(file, dropins)
    assert str(caught.value) == (
        f"{dropins}/1.yaml:2: teardown.settle (500ms) must be at most teardown.settle_max (100ms)."
    )


def test_only_the_default_file_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "config.yaml"
    with pytest.raises(ConfigError) as caught:
        load(missing, None)
    assert str(caught.value) == f"{missing}: cannot be read: No such file or directory."
    monkeypatch.setattr(config_file, "DEFAULT_FILE", missing)
    assert load(missing, tmp_path / "config.d").config == Config()
    missing.symlink_to("nowhere")
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
        load(missing, None)


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="pipe: is not a regular file"):
        load(pipe, None)
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory\."):
        load(tmp_path, None)
    good = tmp_path / "good.yaml"
    good.write_text("")
    with pytest.raises(ConfigError, match=r"good\.yaml: cannot be read: Not a directory"):
        load(good, good)


def test_a_dropin_with_the_wrong_ending_is_not_ignored(tmp_path: Path, file: Path) -> None:
    file.write_text("")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "10-a.yml").write_text("")
    with pytest.raises(ConfigError, match=r"10-a\.yml: is not read, because a drop-in must end in \.yaml"):
        load(file, tmp_path / "d")


@pytest.mark.parametrize(
    ("written", "usec"),
    [
        ("0", 0),
        ("0s", 0),
        ("1us", 1),
        ("7µs", 7),
        ("300ms", 300_000),
        ("2s", 2 * SEC),
        ("1.5s", 1_500_000),
        ("5min", 300 * SEC),
        ("5m", 300 * SEC),
        ("2 s", 2 * SEC),
        ("1min 30s", 90 * SEC),
        ("1h30min", 5400 * SEC),
        ("1d", 86400 * SEC),
        *(
            (wrong, None)
            for wrong in ["", " ", "1", "s", "1.s", ".5s", "1e3s", "1S", "1s,", "- 1s", "1y", "१s"]
        ),
    ],
)
def test_spans(written: str, usec: int | None) -> None:
    if usec is None:
        with pytest.raises(ValueError, match=f"^{re.escape(written)}$"):
            parse_span(written)
    else:
        assert parse_span(written) == usec


@pytest.mark.parametrize(
    ("written", "count_bytes"),
    [
        ("0", 0),
        ("4096", 4096),
        ("64K", 64 << 10),
        ("64M", 64 << 20),
        ("64MiB", 64 << 20),
        ("1.5G", 3 << 29),
        ("1T", 1 << 40),
        *((wrong, None) for wrong in ["", "M", "64m", "64MB", "64X", "-1", "0x40", "1_000", "64iB", "64B"]),
    ],
)
def test_sizes(written: str, count_bytes: int | None) -> None:
    if count_bytes is None:
        with pytest.raises(ValueError, match=f"^{re.escape(written)}$"):
            parse_size(written)
    else:
        assert parse_size(written) == count_bytes


def test_every_setting_has_a_rule_and_every_quantity_a_range_that_holds_its_default() -> None:
    config = Config()
    sections = [None, *(item.name for item in fields(config) if is_dataclass(getattr(config, item.name)))]
    count = sum(
        1
        for section in sections
        for item in fields(getattr(config, section) if section else config)
        if item.name not in sections
    )
    assert len(RULES) == count
    quantities = {
        rule.key: getattr(getattr(config, rule.section), rule.field)
        for rule in RULES.values()
        if rule.section and not rule.many and rule.kind not in (SWITCH, TEXTFILE)
    }
    assert quantities.keys() == RANGES.keys()
    for key, value in quantities.items():
        low, high = RANGES[key]
        assert low <= value <= high, key


def test_the_parser_is_not_loaded_for_nothing(tmp_path: Path) -> None:
    settings = tmp_path / "config.yaml"
    settings.write_text("# teardown:\n#   settle: 300ms\n\n")
    program = (
        "import sys; from pathlib import Path; from logindguard.config_file import load; "
        "load(Path(sys.argv[1]), None); sys.exit('yaml' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, settings], check=True)


def test_the_sample_shows_each_setting_with_its_default(file: Path) -> None:
    sample = (Path(__file__).parents[2] / "units" / "config.yaml").read_text()
    assert read(file, sample) == Config()
    shown = re.sub(r"^#(?=[a-z_]+:|  +[a-z_]+:|  +- )", "", sample, flags=re.MULTILINE)
    file.write_text(shown)
    loaded = load(file, None)
    assert loaded.config == Config()
    assert [key for key, origin in loaded.origins.items() if origin == "default"] == []
