"""Targets: the requested size, as fractions of the dense network or as absolute numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ..errors import UserError
from ..io.validation import is_finite_number, short_repr

SIZE_SUFFIXES = {"k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12}


@dataclass(frozen=True, slots=True)
class Target:
    """Upper limits on FLOPs and params: a float is a fraction of dense, an int is absolute."""

    flops: float | int | None = None
    params: float | int | None = None

    def to_json(self) -> dict[str, float | int | None]:
        """Return the record as plain values."""
        return {"flops": self.flops, "params": self.params}

    def scaled(self, factor: float, dense: tuple[int, int]) -> Target:
        """Return the target times `factor`, as fractions of at most 1."""
        parts = self.fractions(dense)
        flops, params = (None if p is None else min(1.0, round(p * factor, 9)) for p in parts)
        return Target(flops, params)

    def fractions(self, dense: tuple[int, int]) -> tuple[float | None, float | None]:
        """Return both limits as fractions of the dense (macs, params)."""
        flops = self.flops / dense[0] if isinstance(self.flops, int) else self.flops
        params = self.params / dense[1] if isinstance(self.params, int) else self.params
        return flops, params

    def first_fraction(self, dense: tuple[int, int]) -> float:
        """Return the first limit that is set, as a fraction of the dense size."""
        return next(part for part in self.fractions(dense) if part is not None)

    def limits(self, dense: tuple[int, int]) -> tuple[int | None, int | None]:
        """Return the largest allowed (macs, params) as exact integers, floor(t * dense)."""
        return absolute_limit(self.flops, dense[0]), absolute_limit(self.params, dense[1])


def absolute_limit(part: float | int | None, dense: int) -> int | None:
    """Return floor(t * dense) in exact arithmetic; t is the decimal that the user wrote."""
    if part is None or isinstance(part, int):
        return part
    return math.floor(Fraction(repr(part)) * dense)


def intermediate_targets(target: Target, dense: tuple[int, int], steps: int) -> tuple[Target, ...]:
    """Return `steps` absolute targets from the dense size to `target` in a geometric series."""
    limits = target.limits(dense)

    def part(index: int, step: int) -> int | None:
        size, whole = limits[index], dense[index]
        if size is None or step == steps:
            return size
        share: float = (size / whole) ** (step / steps)
        return math.floor(whole * share)

    return tuple(Target(part(0, step), part(1, step)) for step in range(1, steps + 1))


def target_from_json(values: Any) -> Target:
    """Read a target that `Target.to_json` wrote."""
    for part in (values.get("flops"), values.get("params")):
        if part is not None and not (is_finite_number(part) and part > 0):
            raise UserError(
                f"a target must be a number above 0, got {short_repr(part)}; write 0.4"
            )
    return Target(values.get("flops"), values.get("params"))


def parse_size(option: str, text: str | float | int | None) -> float | int | None:
    """Read a size option: 0.4, "40%" or "50M" (an absolute number).

    Raises:
        UserError: If the text is none of these.
    """
    if text is None:
        return None
    if isinstance(text, bool) or not isinstance(text, str | float | int):
        raise UserError(f"{option} must be a number, got {text!r}; for forty percent write 0.4")
    word = str(text).strip().lower().replace("_", "")
    try:
        if word.endswith("%"):
            return check_fraction(option, float(Fraction(word[:-1]) / 100), str(text))
        if word[-1:] in SIZE_SUFFIXES:
            return check_absolute_size(
                option, float(word[:-1]) * SIZE_SUFFIXES[word[-1]], str(text)
            )
        return check_fraction(option, float(word), str(text))
    except (ValueError, ZeroDivisionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{option} must be a fraction, a percentage or an absolute number, got {text!r}; "
            "write 0.4, 40% or 50M"
        ) from None


def check_fraction(option: str, value: float, text: str) -> float:
    """Raise unless 0 < value <= 1."""
    if 0 < value <= 1:
        return value
    remedy = "for forty percent write 0.4"
    if 1 < value <= 100:
        percent = f"{value:g}"
        remedy = f"for {percent} percent write {value / 100:g}"
        if value == 40:
            remedy = "for forty percent write 0.4"
    elif value > 100 and math.isfinite(value):
        remedy = f"for an absolute number add a unit, as in {value / 1e6:g}M"
    rule = "in (0, 1]" if math.isfinite(value) else "a finite number in (0, 1]"
    raise UserError(f"{option} must be {rule}, got {text}; {remedy}")


def check_absolute_size(option: str, value: float, text: str) -> int:
    """Raise unless the absolute number is finite and at least 1."""
    if not math.isfinite(value) or value < 1:
        raise UserError(f"{option} must be at least 1 when absolute, got {text}; write 50M")
    return int(value)
