"""A setting as Python or TOML writes it, in the type that the record has."""

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
    """A value in the type of its setting; lists stand for words between commas."""
    hint = get_type_hints(SearchSettings)[name]
    if value is None and NoneType in get_args(hint):
        return None
    several, kind = get_origin(hint) is tuple, (*get_args(hint), hint)[0]
    found = convert_all(kind, value) if several else convert_to_type(kind, value)
    if found is None:
        wanted = "text, or a list of texts" if several else TYPE_DESCRIPTIONS[kind]
        raise UserError(
            f"{where}: {name} must be {wanted}, got {short_repr(value)}; see paretoprune search --help"
        )
    return found


def convert_all(kind: Any, value: object) -> tuple[Any, ...] | None:
    """Texts or paths, of one or of a list; None where one is neither."""
    words = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(word, str | Path) for word in words):
        return None
    return tuple(kind(word) for word in words)


def convert_to_type(kind: Any, value: object) -> Any:
    """The value as one of this type; None where it is none."""
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
    """Numbers of other libraries, as NumPy's, as Python's own."""
    if isinstance(value, bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value
