"""The rules that all contenders share: the budget, the fine-tune, the sizes, the reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Any, Literal

from paretoprune.trainers.training.optimizer import TrainingSettings

SIZES = (0.4, 0.6)  # shares of the FLOPs at which accuracy is quoted; the first is our target
LOW, HIGH = 0.2, 0.8  # where fronts are compared: what a search for 0.4 spreads over
LEAST_ACCURACY = 0.5
GOLDEN = 0.6180339887498949  # its multiples mod 1 are spread evenly, whatever their number


@dataclass(frozen=True, slots=True)
class Rules:
    """One table's budget, wall time or images, and the fine-tune of every candidate.

    The images are those trained on and those that scores were measured with, one like the other;
    not those of recalibration, refit and validation, and not what a gradual policy looks at on
    its way.
    """

    table: Literal["wall", "images"]
    minutes: float = 20.0
    images: int = 1_200_000  # about what twenty minutes on two cores pay for
    epochs: float = 1.0
    workers: int = 2

    def about(self) -> dict[str, Any]:
        """What the results must say of it."""
        limit = {"minutes": self.minutes} if self.table == "wall" else {"images": self.images}
        tuning = self.tuning()
        return {
            "table": self.table,
            "budget": limit,
            "workers": self.workers,
            "fine_tune": {
                "epochs": tuning.epochs,
                "learning_rate": tuning.learning_rate,
                "schedule": "cosine",
                "batch_size": tuning.batch_size,
                "distill": tuning.distill,
                "temperature": tuning.temperature,
            },
            "reference": {"accuracy": LEAST_ACCURACY, "flops": HIGH},
        }

    def halved(self) -> Rules:
        """The same with half of the budget."""
        return replace(self, minutes=self.minutes / 2, images=self.images // 2)

    def tuning(self) -> TrainingSettings:
        """The brief fine-tune."""
        return TrainingSettings(epochs=self.epochs)


def sizes() -> Iterator[float]:
    """Shares of the FLOPs to try, without end: the quoted ones first, among others spread evenly.

    None comes twice: the same cut, tuned alike, would be the same network.
    """
    quoted = iter(SIZES)
    for step in count(1):
        yield from islice(quoted, 1)
        yield round(LOW * (HIGH / LOW) ** ((GOLDEN * step) % 1.0), 4)
