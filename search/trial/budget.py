"""What a trial and the dense training may take."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...trainers.data.types import Data
from ..config.settings import SearchSettings

# An epoch of small data is too short to learn from: epochs and images, whichever is more.
DENSE_EPOCHS, DENSE_IMAGES = 30.0, 32_768
TRIAL_EPOCHS, TRIAL_IMAGES = 1.0, 10_752
RUNGS = (0.0, 0.25, 0.5)  # shares of the epochs


@dataclass(frozen=True, slots=True)
class Effort:
    """What a trial may take. Epochs are of the brief fine-tune and of the front's longer one."""

    epochs: float
    final_epochs: float = 0.0
    rungs: tuple[float, ...] = ()  # shares of the epochs after which a trial is judged
    latency: bool = False  # is an objective or has a limit, so every trial measures it
    timeout: float | None = None  # seconds


def effort_of(settings: SearchSettings, data: Data) -> Effort:
    """What a trial may take."""
    return Effort(
        epochs=settings.epochs or epochs_for(data, TRIAL_EPOCHS, TRIAL_IMAGES),
        final_epochs=settings.final_epochs or 0.0,
        rungs=RUNGS if settings.halving else (),
        latency=bool(settings.objective) or settings.max_latency_ms is not None,
        timeout=settings.trial_timeout,
    )


def dense_epochs(settings: SearchSettings, data: Data) -> float:
    """Epochs of the dense training, where nobody did it before."""
    return settings.dense_epochs or epochs_for(data, DENSE_EPOCHS, DENSE_IMAGES)


def epochs_for(data: Data, epochs: float, images: int) -> float:
    """`epochs`, or as many as it takes to see `images` images."""
    return float(max(epochs, math.ceil(images / len(data.train))))
