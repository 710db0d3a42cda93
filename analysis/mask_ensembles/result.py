"""The ensemble: what was measured of every atom, how surely, and what it took."""

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
    """What measuring took so far."""

    samples: int = 0  # masks
    dropped: int = 0  # masks whose loss was not a finite number
    forwards: int = 0  # images
    backwards: int = 0  # images
    halvings: int = 0  # of the batch, when memory ran out
    seconds: float = 0.0  # of all workers together

    def plus(self, other: MeasurementEffort) -> MeasurementEffort:
        """Both."""
        names = [field.name for field in fields(self)]
        return MeasurementEffort(
            **{name: getattr(self, name) + getattr(other, name) for name in names}
        )


@dataclass(frozen=True, slots=True)
class ConvergenceCheck:
    """How good the model was after so many samples."""

    samples: int
    held_out_r2: float  # of the loss changes of masks that it was not fitted to
    agreement: float  # rank correlation of the scores that two halves of the samples give


@dataclass(frozen=True, slots=True, eq=False)
class EnsembleResult:
    """Scores [A] with standard errors [A], and the linear model of the loss change.

    loss change = level + (x - centre)'coefficients, with x the columns of the removed atoms [F];
    the coefficients' covariance is root root', or root^2 on the diagonal where root is [F].
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
    reach: Values  # [G + 1], the highest share removed of each group, and of all atoms
    checks: tuple[ConvergenceCheck, ...]
    effort: MeasurementEffort
    settled: bool  # stopped because the ranking had settled, not at a limit
    notes: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """What the scores count."""
        settings = self.settings
        counted = "rise of log(1 + loss)" if settings.transform == "log1p" else "rise of loss"
        if settings.measure == "accuracy":
            counted = "accuracy lost"
        return counted if settings.variant == "mean" else f"{settings.variant} of the {counted}"


def add_ensemble(evidence: Measurements, name: str, ensemble: EnsembleResult) -> Measurements:
    """Evidence that also has an ensemble's scores and errors, under a score's name."""
    return replace(
        evidence,
        scores={**evidence.scores, name: as_layer_scores(ensemble.score)},
        errors={**evidence.errors, name: ensemble.errors},
    )


ARRAYS = ("score", "errors", "coefficients", "centre", "root", "reach")


def ensemble_to_arrays(ensemble: EnsembleResult) -> NamedArrays:
    """Arrays, and all that is no array as one JSON text."""
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


def ensemble_from_arrays(key: str, tables: NamedArrays) -> EnsembleResult:
    """What `ensemble_to_tables` took apart."""
    rest = json.loads(str(tables["record"]))
    arrays: dict[str, Any] = {name: tables[name] for name in ARRAYS}
    return EnsembleResult(
        key=key,
        settings=EnsembleSettings(**rest["settings"]),
        level=rest["level"],
        level_error=rest["level_error"],
        effort=MeasurementEffort(**rest["effort"]),
        checks=tuple(ConvergenceCheck(**check) for check in rest["checks"]),
        settled=rest["settled"],
        notes=tuple(rest["notes"]),
        **arrays,
    )
