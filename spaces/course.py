"""The course of gates: how both sizes of a network went to their targets in training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .errors import UserError
from .fields import read_record

COURSE = "course.json"  # in the folder of a trial with gates


@dataclass(frozen=True, slots=True)
class Course:
    """Sizes as fractions of dense after some of the steps, and what was asked for."""

    steps: tuple[int, ...]
    flops: tuple[float, ...]
    params: tuple[float, ...]
    target_flops: float | None = None
    target_params: float | None = None

    def __post_init__(self) -> None:
        if not len(self.steps) == len(self.flops) == len(self.params) > 0 < min(self.steps):
            raise UserError("a course must have both sizes of at least one step, from step 1 on")

    def to_json(self) -> dict[str, Any]:
        """The record as plain values."""
        return asdict(self)


def course_from_json(values: Any) -> Course:
    """Read a course."""
    return read_record(Course, values, "a course", exact=False)
