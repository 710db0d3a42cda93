"""Result of an ensemble: scores with standard errors, the linear model, and the effort."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...spaces.arrays import NamedArrays
from ...spaces.policy.layer_scores import as_layer_scores
from ...spaces.policy.measurements import Measurements
from .settings import EnsembleSettings

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MeasurementEffort:
    """What the measurement cost so far."""

    samples: int = 0  # masks
    dropped: int = 0  # masks without a finite loss
    forwards: int = 0  # images
    backwards: int = 0  # images
    halvings: int = 0  # of the batch size, when memory ran out
    seconds: float = 0.0  # of all workers together

    def plus(self, other: MeasurementEffort) -> MeasurementEffort:
        """The sum of both efforts."""
        names = [field.name for field in fields(self)]
        return MeasurementEffort(
            **{name: getattr(self, name) + getattr(other, name) for name in names}
        )


@dataclass(frozen=True, slots=True)
class ConvergenceCheck:
    """Quality of the linear model after `samples` masks."""

    samples: int
    held_out_r2: float  # on masks that were not fitted
    agreement: float  # rank correlation of the scores from two halves of the samples


@dataclass(frozen=True, slots=True, eq=False)
class EnsembleResult:
    """Scores [A] with standard errors [A], and the linear model of the loss change.

    loss change = level + (x - centre)'coefficients, with x the features of the removed atoms [F];
    the coefficients' covariance is root root', or diagonal with root^2 if root is [F].
    """

    key: str
    settings: EnsembleSettings
    score: Values
    errors: Values
    coefficients: Values
    centre: Values
    level: float
    level_error: float
    root: NDArray[np.float32]
    reach: Values  # [G + 1], the highest removed share of each group and of all atoms
    checks: tuple[ConvergenceCheck, ...]
    effort: MeasurementEffort
    settled: bool  # True if the ranking converged before a limit
    notes: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """The unit of the scores, for display."""
        settings = self.settings
        counted = "rise of log(1 + loss)" if settings.transform == "log1p" else "rise of loss"
        if settings.measure == "accuracy":
            counted = "accuracy lost"
        return counted if settings.variant == "mean" else f"{settings.variant} of the {counted}"


def add_ensemble(measurements: Measurements, name: str, ensemble: EnsembleResult) -> Measurements:
    """Return the measurements with the ensemble's scores and errors under a score name."""
    return replace(
        measurements,
        scores={**measurements.scores, name: as_layer_scores(ensemble.score)},
        errors={**measurements.errors, name: ensemble.errors},
    )


ARRAYS = ("score", "errors", "coefficients", "centre", "root", "reach")


def ensemble_to_arrays(ensemble: EnsembleResult) -> NamedArrays:
    """Convert to arrays; all other fields become one JSON text."""
    rest = {
        "settings": asdict(ensemble.settings),
        "level": ensemble.level,
        "level_error": ensemble.level_error,
        "effort": asdict(ensemble.effort),
        "checks": [asdict(check) for check in ensemble.checks],
        "settled": ensemble.settled,
        "notes": ensemble.notes,
    }
    arrays = {name: getattr(ensemble, name) for name in ARRAYS}
    return {**arrays, "record": np.array(json.dumps(rest))}


def ensemble_from_arrays(key: str, arrays: NamedArrays) -> EnsembleResult:
    """Inverse of `ensemble_to_arrays`."""
    rest = json.loads(str(arrays["record"]))
    fields_: dict[str, Any] = {name: arrays[name] for name in ARRAYS}
    return EnsembleResult(
        key=key,
        settings=EnsembleSettings(**rest["settings"]),
        level=rest["level"],
        level_error=rest["level_error"],
        effort=MeasurementEffort(**rest["effort"]),
        checks=tuple(ConvergenceCheck(**check) for check in rest["checks"]),
        settled=rest["settled"],
        notes=tuple(rest["notes"]),
        **fields_,
    )
