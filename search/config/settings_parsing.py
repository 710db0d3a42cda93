"""Convert settings from Python or TOML to the types of `SearchSettings`."""

from __future__ import annotations

from numbers import Integral, Real
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from ...spaces.errors import UserError
from ...spaces.io.validation import is_finite_number, is_int64, short_repr
from .settings import SearchSettings

TYPE_DESCRIPTIONS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text or a number",
    Path: "a path",
}


def parse_setting(name: str, value: object, where: str) -> Any:
    """Convert a value to the type of its setting.

    Args:
        name: a field of `SearchSettings`.
        value: the value; a list stands for text separated by commas.
        where: what an error message names as the place, such as "search".

    Raises:
        UserError: the value has the wrong type.
    """
    hint = get_type_hints(SearchSettings)[name]
    if value is None and NoneType in get_args(hint):
        return None
    is_list, kind = get_origin(hint) is tuple, (*get_args(hint), hint)[0]
    converted = convert_all(kind, value) if is_list else convert_to_type(kind, value)
    if converted is None:
        expected = "text, or a list of texts" if is_list else TYPE_DESCRIPTIONS[kind]
        raise UserError(
            f"{where}: {name} must be {expected}, got {short_repr(value)}; "
            "see paretoprune search --help"
        )
    return converted


def convert_all(kind: Any, value: object) -> tuple[Any, ...] | None:
    """Convert one text or path, or a list of them. Return None if an item is neither."""
    words = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(word, str | Path) for word in words):
        return None
    return tuple(kind(word) for word in words)


def convert_to_type(kind: Any, value: object) -> Any:
    """Convert a value to this type. Return None if it cannot be converted."""
    value = to_builtin_number(value)
    if kind is bool or isinstance(value, bool):
        return value if kind is bool and isinstance(value, bool) else None
    if kind is str and isinstance(value, list | tuple):
        return ",".join(str(word) for word in value)
    if kind is str and isinstance(value, str | int | float):
        return str(value)
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    if kind is int and is_int64(value):
        return value
    if kind is float and is_finite_number(value):
        return float(value)  # type: ignore[arg-type]
    return None


def to_builtin_number(value: object) -> object:
    """Convert a number of another library, such as NumPy, to int or float."""
    if isinstance(value, bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value
