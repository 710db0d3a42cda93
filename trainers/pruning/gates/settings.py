"""What gates are trained for and how: the settings, and the task that they are part of."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ....spaces.allocations.decode import PruningSpace
from ....spaces.cost.target import Target
from ....spaces.errors import UserError
from ...training.optimizer import TrainingSettings
from .indicators import INDICATORS


@dataclass(frozen=True, slots=True)
class GateSettings:
    """`tuning` trains the weights meanwhile; its epochs are the gates' epochs too.

    `learning_rate` is counted by the run, not by the step: so far the mean gradient alone would
    move a gate, whose value stays within -1..1. One number then serves short and long runs.
    """

    tuning: TrainingSettings = field(default_factory=lambda: TrainingSettings(epochs=4.0))
    variant: str = "hard"
    learning_rate: float = 1.0
    settle: float = 0.5  # the last share of the run, in which that rate falls to 0
    weight: float = 5.0  # of the size term in the end; the task's gradient counts 1
    approach: float = 0.5  # the first share, in which the weight grows and the aim falls
    near: float = 0.2  # relative error at which the size term's pull begins to ease
    floor: int = 1  # atoms of every group that stay open
    shrink_every: float | None = 1.0  # epochs after which what is closed for good is cut

    def __post_init__(self) -> None:
        """Refuse values that no run could have."""
        rules = {
            "variant": (self.variant in INDICATORS, f"one of {', '.join(INDICATORS)}"),
            "learning_rate": (self.learning_rate > 0, "> 0"),
            "settle": (0 <= self.settle <= 1, "in [0, 1], a share of the run"),
            "weight": (self.weight > 0, "> 0"),
            "approach": (0 <= self.approach <= 1, "in [0, 1], a share of the run"),
            "near": (0 < self.near <= 1, "in (0, 1]"),
            "floor": (self.floor >= 1, ">= 1"),
            "shrink_every": (self.shrink_every is None or self.shrink_every > 0, "> 0 or None"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise UserError(f"{name} must be {rule}, got {getattr(self, name)!r}; change it")
        if self.tuning.ema is not None:
            raise UserError(
                f"ema must be None while gates are trained, got {self.tuning.ema}; an average of "
                "open and closed is neither, so average in the fine-tune that follows"
            )

    def ramp(self, share: float) -> float:
        """How far aim and weight have come on their way, 0..1, at a share of the run."""
        return min(1.0, share / self.approach) if self.approach else 1.0

    def gate_learning_rate_at(self, share: float) -> float:
        """The gates' learning rate, by the run, at a share of it."""
        left = min(1.0, (1 - share) / self.settle) if self.settle else 1.0
        return self.learning_rate * left


@dataclass(frozen=True, slots=True, eq=False)
class GateTrainingSpec:
    """Train gates in this space to this target.

    With `scores` [A] the gates begin in their order, the highest at 1, the lowest near closing;
    without, all begin at 1.
    """

    space: PruningSpace
    target: Target
    settings: GateSettings = field(default_factory=GateSettings)
    scores: NDArray[np.float64] | None = None
    seed: int = 0

    @property
    def limits(self) -> tuple[int | None, int | None]:
        """The largest allowed (macs, params)."""
        return self.target.limits(self.space.cost_model.dense)
