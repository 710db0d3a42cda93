"""The course of gates: how both sizes of a network went to their targets in training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..errors import UserError
from ..io.validation import record_from_json

GATE_HISTORY_FILE = "course.json"  # in the folder of a trial with gates


@dataclass(frozen=True, slots=True)
class GateHistory:
    """Sizes as fractions of dense after some of the steps, and what was asked for.

    `moved` of all `atoms` were opened or closed by the last step, to the exact budget.
    """

    steps: tuple[int, ...]
    flops: tuple[float, ...]
    params: tuple[float, ...]
    target_flops: float | None = None
    target_params: float | None = None
    moved: int | None = None
    atoms: int | None = None

    def __post_init__(self) -> None:
        if not len(self.steps) == len(self.flops) == len(self.params) > 0 < min(self.steps):
            raise UserError("a course must have both sizes of at least one step, from step 1 on")

    def describe_last_step(self) -> str | None:
        """How far the gates were from a mask of the exact budget, in words."""
        if self.moved is None or self.atoms is None:
            return None
        return f"the last step to the exact budget turned {self.moved} of {self.atoms} atoms"

    def to_json(self) -> dict[str, Any]:
        """The record as plain values."""
        return asdict(self)


def gate_history_from_json(values: Any) -> GateHistory:
    """Read a course."""
    return record_from_json(GateHistory, values, "a course", exact=False)
