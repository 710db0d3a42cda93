"""Records from JSON that a stranger may have written: every field of its type, or one line."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from ..errors import UserError

RecordT = TypeVar("RecordT")
FieldReader = Callable[[Any], Any]


def is_str(value: object) -> bool:
    """A string."""
    return isinstance(value, str)


def is_int64(value: object) -> bool:
    """A whole number of 64 bits; True is none."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def is_finite_number(value: object) -> bool:
    """A number that a float can hold."""
    if isinstance(value, float):
        return math.isfinite(value)
    return is_int64(value)


def is_list_of(kind: Callable[[object], bool]) -> Callable[[object], bool]:
    """The check of a list whose entries pass `kind`."""
    return lambda value: isinstance(value, list | tuple) and all(map(kind, value))


def is_dict_of(kind: Callable[[object], bool]) -> Callable[[object], bool]:
    """The check of a table from names to what passes `kind`."""
    return lambda value: isinstance(value, dict) and all(map(kind, value.values()))


TYPE_CHECKS: dict[str, Callable[[object], bool]] = {
    "str": is_str,
    "bool": lambda value: isinstance(value, bool),
    "int": is_int64,
    "float": is_finite_number,
    "tuple[int, ...]": is_list_of(is_int64),
    "tuple[float, ...]": is_list_of(is_finite_number),
    "tuple[str, ...]": is_list_of(is_str),
    "dict[str, int]": is_dict_of(is_int64),
    "dict[str, str]": is_dict_of(is_str),
}


def matches_type(value: object, kind: str) -> bool:
    """True if a value is of the annotated type; types that have no check here take anything."""
    if kind.endswith(" | None"):
        return value is None or matches_type(value, kind.removesuffix(" | None"))
    return kind not in TYPE_CHECKS or TYPE_CHECKS[kind](value)


def record_from_json(
    kind: type[RecordT],
    values: Any,
    where: str,
    *,
    nested: Mapping[str, FieldReader] | None = None,
    exact: bool = True,
) -> RecordT:
    """A record of plain values; `nested` reads its inner records, `exact` refuses unknown fields.

    A field without a default must be there.
    """
    if not isinstance(values, dict):
        raise UserError(
            f"{where} must be a table of fields, got {short_repr(values)}; write it again"
        )
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for name in sorted(map(str, set(values) - set(known))):
        if exact:
            raise UserError(f"{where} has an unknown field {name!r}; write it again")
    found: dict[str, Any] = {}
    for name, field in known.items():
        if name not in values:
            if field.default is MISSING and field.default_factory is MISSING:
                raise UserError(f"{where} lacks the field {name!r}; write it again")
            continue
        value = values[name]
        if nested and name in nested:
            value = nested[name](value)
        elif not matches_type(value, str(field.type)):
            raise UserError(
                f"{where} field {name!r} must be of type {field.type}, got {short_repr(value)}; "
                "write it again"
            )
        found[name] = tuple(value) if isinstance(value, list) else value
    return kind(**found)


def optional_reader(read: FieldReader) -> FieldReader:
    """A reader that lets None through."""
    return lambda value: None if value is None else read(value)


def short_repr(value: object) -> str:
    """A value in an error message: short, on one line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
