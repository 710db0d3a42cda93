"""Build dataclasses from untrusted JSON; a field of the wrong type is a one-line error."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from ..errors import UserError

RecordT = TypeVar("RecordT")
FieldReader = Callable[[Any], Any]


def is_str(value: object) -> bool:
    """Whether a value is a string."""
    return isinstance(value, str)


def is_int64(value: object) -> bool:
    """Whether a value is an integer of 64 bits; booleans are not integers."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def is_finite_number(value: object) -> bool:
    """Whether a value is a finite float or a 64-bit integer."""
    if isinstance(value, float):
        return math.isfinite(value)
    return is_int64(value)


def is_list_of(kind: Callable[[object], bool]) -> Callable[[object], bool]:
    """Return a check for lists and tuples whose entries pass `kind`."""
    return lambda value: isinstance(value, list | tuple) and all(map(kind, value))


def is_dict_of(kind: Callable[[object], bool]) -> Callable[[object], bool]:
    """Return a check for dicts whose values pass `kind`."""
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
    """Whether a value has the annotated type; a type without a check accepts every value."""
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
    """Build a dataclass from a dict of plain values.

    Args:
        kind: The dataclass; a field without a default is required.
        values: The dict.
        where: What the values are, as the start of error messages.
        nested: Readers of fields that are not plain values, by field name.
        exact: Raise an error for unknown fields instead of ignoring them.

    Raises:
        UserError: If a field is missing, unknown or of the wrong type.
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
    """Return a reader that returns None for None and otherwise calls `read`."""
    return lambda value: None if value is None else read(value)


def short_repr(value: object) -> str:
    """Return the repr of a value, cut to 60 characters for error messages."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
