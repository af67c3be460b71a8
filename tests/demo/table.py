"""What the demos show at their end: one row a figure, one column a side."""

from __future__ import annotations

from collections.abc import Sequence

NAME_COLUMNS = 42
VALUE_COLUMNS = 14

Row = tuple[str, Sequence[str]]
"""The figure's name, and its value on each side."""


def table(
    rows: Sequence[Row], *, name_columns: int = NAME_COLUMNS, value_columns: int = VALUE_COLUMNS
) -> str:
    """Lines of one length; the first row is the heads."""
    return "\n".join(
        f"{name:<{name_columns}}" + "".join(f"{value:>{value_columns}}" for value in values)
        for name, values in rows
    )


def number(value: int | None) -> str:
    return "-" if value is None else f"{value}"


def size(value_bytes: int | None) -> str:
    if value_bytes is None:
        return "-"
    if value_bytes >= 1 << 20:
        return f"{value_bytes / (1 << 20):.1f}M"
    return f"{value_bytes / (1 << 10):.0f}K"


def seconds(value_usec: float | None) -> str:
    return "-" if value_usec is None else f"{value_usec / 1e6:.2f}"
