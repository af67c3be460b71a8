"""The command line as systemd's tools take it: options anywhere, one verb, no verb is status."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from typing import NoReturn

from .command_line import DEFAULT_VERB, EVERYWHERE, OPTIONS, VERBS, Verb
from .exits import Exit, Failure


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Failure(f"{message[:1].upper()}{message[1:]}.", Exit.USAGE)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """`verb`, `argument` ("" where there is none), and every option by its name. Failure(USAGE) otherwise."""
    parser = _Parser(prog="logindguardctl", add_help=False, allow_abbrev=False)
    for option in OPTIONS.values():
        if not option.metavar:
            parser.add_argument(*option.flags, dest=option.name, action="store_true")
        elif option.many:
            parser.add_argument(*option.flags, dest=option.name, action="append", default=[])
        else:
            parser.add_argument(*option.flags, dest=option.name, choices=option.choices or None)
    parser.add_argument("words", nargs="*")
    if any("\udc80" <= character <= "\udcff" for word in argv for character in word):
        raise Failure("An argument is not valid text in this locale.", Exit.USAGE)
    options = parser.parse_intermixed_args(_joined(argv))
    words: list[str] = options.words
    if "" in words:  # an unset variable of a script, which must not come to mean everything
        raise Failure("An argument is empty.", Exit.USAGE)
    options.verb = words[0] if words else DEFAULT_VERB
    options.argument = ""
    if options.help or options.version:
        return options
    verb = _verb(options.verb)
    if len(words) - 1 > verb.most:
        raise Failure(f"Too many arguments for '{verb.name}'.", Exit.USAGE)
    if len(words) - 1 < verb.least and words:
        raise Failure(f"'{verb.name}' needs an argument: {verb.arguments}.", Exit.USAGE)
    options.argument = words[1] if len(words) > 1 else ""
    _check_options(options, verb)
    options.number = _count(options.number, "-n")
    options.threshold = _count(options.threshold, "--threshold=")
    options.property = [name for given in options.property for name in given.split(",") if name]
    return options


def _joined(argv: Sequence[str]) -> list[str]:
    """`--since -2h` as `--since=-2h`: argparse takes the second word for an option."""
    takes_value = {
        flag for option in OPTIONS.values() if option.metavar for flag in option.flags if len(flag) > 2
    } | {"-S", "-U"}
    joined: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--":
            return [*joined, word, *words]
        if word in takes_value and (value := next(words, None)) is not None:
            joined.append(f"{word}={value}" if word.startswith("--") else f"{word}{value}")
        else:
            joined.append(word)
    return joined


def _verb(name: str) -> Verb:
    if name in VERBS:
        return VERBS[name]
    near = difflib.get_close_matches(name, VERBS, 1)
    hint = f"did you mean '{near[0]}'?" if near else "see 'logindguardctl --help'."
    raise Failure(f"Unknown command '{name}', {hint}", Exit.USAGE)


def _check_options(options: argparse.Namespace, verb: Verb) -> None:
    for option in OPTIONS.values():
        given = getattr(options, option.name) not in (None, False, [])
        if given and option.name not in (*EVERYWHERE, *verb.options):
            raise Failure(f"'{verb.name}' does not take {option.flags[-1]}.", Exit.USAGE)


def _count(given: str | None, flag: str) -> int | None:
    if given is None:
        return None
    if not (given.isascii() and given.isdecimal() and len(given) < 16):
        raise Failure(f"{flag} expects a number, not '{given}'.", Exit.USAGE)
    return int(given)
