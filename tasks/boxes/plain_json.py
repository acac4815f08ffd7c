"""Values of annotation files as JSON text, and as the numbers of columns where they fit."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import orjson

NO_OBJECT = "\0"
"""Key of what stands for an item that is no JSON object."""

_INT64_END = 2**63


def dump_json(value: object, *, plain: bool) -> str:
    """Return JSON text that reads back as the same value; `plain` values (see `JsonPiece`) are written fast."""
    if plain:
        return orjson.dumps(value).decode()
    return json.dumps(value, separators=(",", ":"))


def is_int64(value: int) -> bool:
    """Tell whether a whole number fits 64 bits."""
    return -_INT64_END <= value < _INT64_END


def take_int(values: dict[str, object], key: str) -> int | None:
    """Take a whole number of 64 bits out of a JSON object; what is none stays in it."""
    value = values.get(key)
    if type(value) is int and is_int64(value):
        del values[key]
        return value
    return None


def take_float(values: dict[str, object], key: str) -> float | None:
    """Take a number that a float holds exactly out of a JSON object; what is none stays in it."""
    value = values.get(key)
    number = as_float(value)
    if number is not None:
        del values[key]
    return number


def take_bool(values: dict[str, object], key: str) -> bool | None:
    """Take 0 or 1 out of a JSON object; what is neither stays in it."""
    value = values.get(key)
    if type(value) is int and value in (0, 1):
        del values[key]
        return value == 1
    return None


def take_box(values: dict[str, object], key: str) -> list[float] | None:
    """Take four numbers out of a JSON object; what is something else stays in it."""
    value = values.get(key)
    if not isinstance(value, list) or len(value) != 4:
        return None
    box = [number for item in value if (number := as_float(item)) is not None]
    if len(box) != 4:
        return None
    del values[key]
    return box


def as_float(value: object) -> float | None:
    """Return a JSON number as the float that equals it, None for anything else."""
    if type(value) is float:
        return value
    if type(value) is int and abs(value) <= 2**53:
        return float(value)
    return None


def as_number(value: float) -> float | int:
    """Return a float as the shortest JSON number that equals it."""
    return int(value) if math.isfinite(value) and value.is_integer() and abs(value) <= 2**53 else value


def key_of(value: object) -> int | str | None:
    """Return an id as annotation files have them, a whole number or a text, None for anything else."""
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None


def dump_rest(values: Mapping[str, object], *, plain: bool) -> str | None:
    """Return what is left of a JSON object as text, None when nothing is."""
    return dump_json(dict(values), plain=plain) if values else None
