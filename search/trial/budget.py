"""What a trial and the dense training may take."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...trainers.data.splits import DataSplits
from ..config.settings import SearchSettings

# An epoch of small data is too short to learn from: epochs and images, whichever is more.
MIN_DENSE_EPOCHS, MIN_DENSE_IMAGES = 30.0, 32_768
MIN_TRIAL_EPOCHS, MIN_TRIAL_IMAGES = 1.0, 10_752
RUNG_EPOCH_SHARES = (0.0, 0.25, 0.5)  # shares of the epochs


@dataclass(frozen=True, slots=True)
class TrialBudget:
    """What a trial may take. Epochs are of the brief fine-tune and of the front's longer one."""

    epochs: float
    final_epochs: float = 0.0
    rung_shares: tuple[float, ...] = ()  # shares of the epochs after which a trial is judged
    measures_latency: bool = False  # is an objective or has a limit, so every trial measures it
    timeout: float | None = None  # seconds


def make_trial_budget(settings: SearchSettings, data: DataSplits) -> TrialBudget:
    """What a trial may take."""
    return TrialBudget(
        epochs=settings.epochs or epochs_covering(data, MIN_TRIAL_EPOCHS, MIN_TRIAL_IMAGES),
        final_epochs=settings.final_epochs or 0.0,
        rung_shares=RUNG_EPOCH_SHARES if settings.halving else (),
        measures_latency=bool(settings.objective) or settings.max_latency_ms is not None,
        timeout=settings.trial_timeout,
    )


def dense_epochs(settings: SearchSettings, data: DataSplits) -> float:
    """Epochs of the dense training, where nobody did it before."""
    return settings.dense_epochs or epochs_covering(data, MIN_DENSE_EPOCHS, MIN_DENSE_IMAGES)


def epochs_covering(data: DataSplits, epochs: float, images: int) -> float:
    """`epochs`, or as many as it takes to see `images` images."""
    return float(max(epochs, math.ceil(images / len(data.train))))
