"""The training budget of a trial."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...trainers.data.splits import DataSplits
from ..config.settings import SearchSettings

# An epoch of small data is too short to learn from: epochs or images, whichever is more.
MIN_TRIAL_EPOCHS, MIN_TRIAL_IMAGES = 1.0, 10_752
RUNG_EPOCH_SHARES = (0.0, 0.25, 0.5)


@dataclass(frozen=True, slots=True)
class TrialBudget:
    """Limits of a trial: epochs of its brief fine-tune and of the longer one of the front."""

    epochs: float
    final_epochs: float = 0.0
    rung_shares: tuple[float, ...] = ()  # shares of the epochs after which halving may stop it
    measures_latency: bool = False  # it is an objective or has a limit
    timeout: float | None = None  # seconds


def make_trial_budget(settings: SearchSettings, data: DataSplits) -> TrialBudget:
    """Return the budget that the settings give each trial on these data."""
    return TrialBudget(
        epochs=settings.epochs or epochs_covering(data, MIN_TRIAL_EPOCHS, MIN_TRIAL_IMAGES),
        final_epochs=settings.final_epochs or 0.0,
        rung_shares=RUNG_EPOCH_SHARES if settings.halving else (),
        measures_latency=bool(settings.objective) or settings.max_latency_ms is not None,
        timeout=settings.trial_timeout,
    )


def epochs_covering(data: DataSplits, epochs: float, images: int) -> float:
    """Return `epochs`, or more if that is needed to see `images` images."""
    return float(max(epochs, math.ceil(images / len(data.train))))
