"""A sample as the fields of a journal entry, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ..model import Mode, Sample
from .entry import PREFIX, BadEntry

_FIELDS = {item.name: PREFIX + item.name.upper() for item in fields(Sample)}


def sample_fields(sample: Sample) -> dict[str, str | int]:
    """The entry without MESSAGE, PRIORITY and MESSAGE_ID."""
    values = {name: getattr(sample, attribute) for attribute, name in _FIELDS.items()}
    return {name: value if isinstance(value, int) else str(value) for name, value in values.items()}


def sample_from(entry: Mapping[str, object]) -> Sample:
    """The sample of a journal entry whose values are str, bytes or int. BadEntry when it is none."""
    values: dict[str, Any] = {}
    for attribute, name in _FIELDS.items():
        value = entry.get(name)
        text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
        try:
            values[attribute] = Mode(text) if attribute == "mode" else int(text)
        except ValueError as error:
            raise BadEntry(f"{name} has no valid value: {error}") from error
    return Sample(**values)
