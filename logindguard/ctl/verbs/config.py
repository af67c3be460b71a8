"""config: the settings that hold, and the file and line that each one comes from."""

from __future__ import annotations

from typing import Any

from ...config_file import ConfigError, Loaded, load
from ...config_values import RULES, Rule
from ..context import Context
from ..exits import Exit, Failure
from ..roots import Roots
from ..table import Cell, Column
from ..terminal import Colour

COLUMNS = (
    Column("SETTING"),
    Column("VALUE", shrink=16),
    Column("ORIGIN", shrink=28, keep_end=True),
)
DEFAULT = "default"


async def run(context: Context) -> Exit:
    loaded = _load(context.world.roots)
    if context.out.as_json:
        context.out.json(
            [
                {
                    "key": key,
                    "field": rule.field,
                    "value": _value(loaded, rule),
                    "origin": loaded.origins[key],
                }
                for key, rule in RULES.items()
            ]
        )
        return Exit.OK
    rows = [
        (
            key,
            Cell(_shown(loaded, rule), None if origin == DEFAULT else Colour.BOLD),
            Cell(origin, Colour.GREY if origin == DEFAULT else None),
        )
        for key, rule in RULES.items()
        for origin in (loaded.origins[key],)
    ]
    context.out.table(COLUMNS, rows, "setting")
    return Exit.OK


def _load(roots: Roots) -> Loaded:
    directory = roots.etc / "logindguard"
    try:
        return load(directory / "config.yaml", directory / "config.d")
    except ConfigError as error:
        denied = isinstance(error.__cause__, PermissionError)
        raise Failure(str(error), Exit.DENIED if denied else Exit.SETTINGS) from error
    except ImportError as error:
        raise Failure(
            "The settings cannot be read: python3-yaml is not installed.", Exit.UNAVAILABLE
        ) from error


def _value(loaded: Loaded, rule: Rule) -> Any:
    holder = getattr(loaded.config, rule.section) if rule.section else loaded.config
    value = getattr(holder, rule.field)
    return list(value) if isinstance(value, tuple) else value


def _shown(loaded: Loaded, rule: Rule) -> str:
    value = _value(loaded, rule)
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return rule.kind.show(value)
