"""The settings of gate training, and the specification of a run."""

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
    """How gates are trained. `tuning` trains the weights in the same epochs.

    `learning_rate` is per run, not per step: the distance that the mean gradient alone would move
    a gate, whose value stays in -1..1. So one value is right for short and long runs.
    """

    tuning: TrainingSettings = field(default_factory=lambda: TrainingSettings(epochs=4.0))
    variant: str = "hard"
    learning_rate: float = 1.0
    settle: float = 0.5  # the last share of the run, in which the learning rate falls to 0
    weight: float = 5.0  # the final weight of the size penalty, relative to the task's gradient
    approach: float = 0.5  # the first share, in which the weight grows and the target size falls
    near: float = 0.2  # the relative error below which the size penalty is quadratic
    floor: int = 1  # the least number of open gates per group
    shrink_every: float | None = 1.0  # epochs between cuts of permanently closed gates

    def __post_init__(self) -> None:
        """Raise UserError for invalid values."""
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
                f"ema must be None for gate training, got {self.tuning.ema}; gates are open or "
                "closed and have no average: use ema in the fine-tune that follows"
            )

    def ramp(self, share: float) -> float:
        """The progress 0..1 of the penalty's weight and target size at a share of the run."""
        return min(1.0, share / self.approach) if self.approach else 1.0

    def gate_learning_rate_at(self, share: float) -> float:
        """The learning rate of the gates (per run) at a share of the run."""
        left = min(1.0, (1 - share) / self.settle) if self.settle else 1.0
        return self.learning_rate * left


@dataclass(frozen=True, slots=True, eq=False)
class GateTrainingSpec:
    """A run of gate training: the pruning space, the target and the settings.

    With `scores` [A], the initial gate values have the order of the scores, from close to 0 up to
    1. Without, all gates start at 1.
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
