"""How gates are trained."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...spaces.errors import UserError
from ..optimisation import Tuning
from .indicators import INDICATORS


@dataclass(frozen=True, slots=True)
class GateSettings:
    """`tuning` trains the weights meanwhile, and its epochs are the gates' epochs too."""

    tuning: Tuning = field(default_factory=lambda: Tuning(epochs=4.0))
    variant: str = "hard"
    learning_rate: float = 0.01  # of the gates; falls to 0 over the run's last part
    settle: float = 0.5
    weight: float = 5.0  # of the size term at last
    growth: float = 1.0
    start_weight: float = 0.0
    approach: float = 0.5  # the share of the run in which aim and weight go to their ends
    band: float = 0.003  # how far below a target a size may be without a push
    floor: int = 1
    near: float = 0.05
    shrink_every: float | None = 1.0  # epochs after which gates that are closed for good are cut
    momentum: float = 0.9

    def weight_at(self, share: float) -> float:
        done = min(1.0, share / self.approach) if self.approach else 1.0
        return self.start_weight + (self.weight - self.start_weight) * done**self.growth

    def rate_at(self, share: float) -> float:
        if share < 1 - self.settle:
            return self.learning_rate
        return self.learning_rate * (1 - share) / self.settle
