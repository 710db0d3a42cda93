"""The gate history: a network's sizes and their targets over gate training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..errors import UserError
from ..io.validation import record_from_json

GATE_HISTORY_FILE = "course.json"  # in the folder of a trial that trains gates


@dataclass(frozen=True, slots=True)
class GateHistory:
    """Sizes as fractions of dense after some training steps, and their targets.

    The final mask of the exact budget flipped `moved` of all `atoms`.
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
            raise UserError(
                "a gate history must have both sizes for at least one step and steps from 1 on; "
                "delete it"
            )

    def describe_last_step(self) -> str | None:
        """Describe how far the gates were from a mask of the exact budget."""
        if self.moved is None or self.atoms is None:
            return None
        return f"the last step to the exact budget turned {self.moved} of {self.atoms} atoms"

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain values."""
        return asdict(self)


def gate_history_from_json(values: Any) -> GateHistory:
    """Read a gate history that `to_json` wrote."""
    return record_from_json(GateHistory, values, "a gate history", exact=False)
