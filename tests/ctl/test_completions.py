"""The completions know every verb and option that the parser knows, and nothing else."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from logindguard.ctl.command_line import EVERYWHERE, OPTIONS, VERBS
from logindguard.model import ReclaimRecord

from .conftest import program

DIRECTORY = Path(__file__).parents[2] / "completions"
BASH = DIRECTORY / "logindguardctl.bash"
ZSH = DIRECTORY / "_logindguardctl"


def flags(*names: str) -> set[str]:
    return {flag for name in names for flag in OPTIONS[name].flags}


class Shell:
    """A real bash that has loaded the file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def complete(self, *words: str) -> set[str]:
        """For the last of `words`, split as bash splits a command line: "=" is a word of its own."""
        split = [part for word in words for part in re.findall(r"=|[^=]+|^$", word) or [""]]
        if words[-1].endswith("="):
            split.append("")
        script = (
            'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1));'
            ' _logindguardctl; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        result = subprocess.run(
            ["bash", "--norc", "-euc", script, "bash", BASH, "logindguardctl", *split],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env={"PATH": f"{self.directory}:/usr/bin:/bin"},
        )
        assert result.stderr == ""
        return set(result.stdout.split("\n")) - {""}


@pytest.fixture
def bash(tmp_path: Path) -> Shell:
    program(
        tmp_path, "systemctl", r"echo 'session-3.scope loaded active'; echo 'dev-\x2d.slice loaded active'"
    )
    program(tmp_path, "loginctl", "echo '      3 1000 alice seat0 tty1'; echo '     c1 0 root - -'")
    program(
        tmp_path,
        "logindguardctl",
        "echo 'Jan 01 09:56:58 9f3cbb00 after session'; echo '2024-11-27 10:00 c0ffee00 before x'",
    )
    return Shell(tmp_path)


class TestBash:
    def test_verbs(self, bash: Shell) -> None:
        assert bash.complete("") == set(VERBS)
        assert bash.complete("--quiet", "re") == {verb for verb in VERBS if verb.startswith("re")}

    @pytest.mark.parametrize("verb", VERBS)
    def test_options_of_each_verb(self, bash: Shell, verb: str) -> None:
        assert bash.complete(verb, "-") == flags(*EVERYWHERE, *VERBS[verb].options)

    def test_all_options_before_the_verb(self, bash: Shell) -> None:
        assert bash.complete("-") == flags(*OPTIONS)

    def test_arguments(self, bash: Shell) -> None:
        units = {"session-3.scope", r"dev-\x2d.slice"}
        assert bash.complete("reclaim", "") == units | {"3", "c1"}
        assert bash.complete("reclaim", "dev") == {r"dev-\x2d.slice"}
        assert bash.complete("show", "") == units | {"9f3cbb00", "c0ffee00"}
        assert bash.complete("sweep", "/u") == {"/user.slice"}
        assert bash.complete("list", "") == set()

    @pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if option.choices])
    def test_choices(self, bash: Shell, name: str) -> None:
        option = OPTIONS[name]
        assert bash.complete("list", f"{option.flags[-1]}=") == set(option.choices)
        first = option.choices[0]
        assert bash.complete("list", f"{option.flags[-1]}={first[:2]}") == {first}

    def test_values(self, bash: Shell) -> None:
        assert bash.complete("show", "x", "--property", "") == set(ReclaimRecord.__dataclass_fields__)
        assert bash.complete("history", "--unit", "ses") == {"session-3.scope"}
        assert "root" in bash.complete("history", "--user=ro")
        assert "yesterday" in bash.complete("history", "-S", "")
        assert bash.complete("history", "-n", "") == set()


class TestZsh:
    def test_syntax(self) -> None:
        assert subprocess.run(["zsh", "-fn", ZSH], check=False, timeout=60).returncode == 0

    def test_verbs_with_their_help(self) -> None:
        described = re.findall(r"^ +'([a-z]+):(.+)'$", ZSH.read_text(), re.MULTILINE)
        assert described == [(verb.name, verb.help) for verb in VERBS.values()]

    def test_options_with_the_verbs_that_take_them(self) -> None:
        text = ZSH.read_text()
        blocks = {"common": text.partition("common=(")[2].partition("\n    )")[0]}
        number = spelt(text.partition("number=(")[2].partition("\n    )")[0])
        assert spelt(blocks["common"]) == flags(*EVERYWHERE)
        known: dict[str, set[str]] = {}
        cases = text.partition("case $words[1] in\n                status")[2].partition("esac")[0]
        for names, body in re.findall(r"^ *([a-z|]+)\)(.*?);;", "status" + cases, re.DOTALL | re.MULTILINE):
            for verb in names.split("|"):
                known[verb] = spelt(body) | (number if "$number" in body else set())
        assert known == {name: flags(*verb.options) for name, verb in VERBS.items() if verb.options}


def spelt(zsh: str) -> set[str]:
    """The options in specifications of _arguments: '(-a --all)'{-a,--all=}'[help]', '--one[help]'."""
    found = set(re.findall(r"'\*?(--?[a-z-]+)=?\[", zsh)) | set(re.findall(r"'\(- \*\)(--?[a-z-]+)\[", zsh))
    for group in re.findall(r"'\{([^}]*)\}'", zsh):
        found |= {name.removesuffix("=") for name in group.split(",")}
    return found
