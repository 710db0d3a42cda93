"""The Pareto front, the best evaluation at the target, and the controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..cost.target import Target, target_from_json
from ..errors import UserError
from ..io.validation import FieldReader, record_from_json
from .evaluation import Evaluation, evaluation_from_json
from .hypervolume import hypervolume, non_dominated_mask

SCHEMA = 1
OBJECTIVES = ("accuracy", "flops_fraction", "params_fraction")
OBJECTIVE_SIGNS = {"accuracy": 1, "flops_fraction": -1, "params_fraction": -1, "latency_ms": -1}
TARGET_TOLERANCE = 0.02  # how far below a target its evaluation may lie, as a fraction of dense


@dataclass(frozen=True, slots=True)
class DenseMetrics:
    """The metrics of the dense network."""

    accuracy: float
    macs: int
    params: int
    test_accuracy: float | None = None
    latency_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Front:
    """The result of a search. `points` are sorted by FLOPs, smallest first."""

    seed: int
    requested: Target
    dense: DenseMetrics
    points: tuple[Evaluation, ...]
    at_target: Evaluation | None = None
    controls: dict[str, Evaluation] = field(default_factory=dict)
    objectives: tuple[str, ...] = OBJECTIVES

    @property
    def points_by_path(self) -> dict[str, Evaluation]:
        """All points and `at_target` by path, each once."""
        return {point.path: point for point in (*self.points, self.at_target) if point}

    @property
    def dominating_trial(self) -> int | None:
        """The trial of a point that dominates `at_target`; None if none does."""
        if self.at_target is None:
            return None
        better = [p for p in self.points if dominates(p, self.at_target, self.objectives)]
        return better[0].trial if better else None

    @property
    def picked(self) -> Evaluation | None:
        """The most accurate point within the requested sizes, as `pick` returns it.

        It is `at_target`, or a point that is at least as accurate.
        """
        dense = self.dense.macs, self.dense.params
        fitting = [
            point for point in self.points if is_within_target(point, self.requested, dense)
        ]
        return max(fitting, key=lambda p: (p.accuracy, -p.loss, -p.macs), default=None)

    @property
    def gains_over_controls(self) -> dict[str, tuple[float, float | None]]:
        """By control: the accuracy of `picked` above it, on validation and on test (or None)."""
        if self.picked is None:
            return {}
        own, test = self.picked.accuracy, self.picked.test_accuracy
        return {
            name: (
                own - control.accuracy,
                test - control.test_accuracy
                if test is not None and control.test_accuracy is not None
                else None,
            )
            for name, control in self.controls.items()
        }

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain values, as front.json holds it."""
        at_target = picked = None
        if self.picked is not None:
            figures = ("accuracy", "test_accuracy")
            above = {
                n: dict(zip(figures, gain, strict=True))
                for n, gain in self.gains_over_controls.items()
            }
            picked = {"trial": self.picked.trial, "path": self.picked.path, "above": above}
        if self.at_target is not None:
            at_target = {**self.at_target.to_json(), "dominated_by": self.dominating_trial}
        return {
            "schema": SCHEMA,
            "seed": self.seed,
            "requested": self.requested.to_json(),
            "objectives": list(self.objectives),
            "dense": asdict(self.dense),
            "points": [point.to_json() for point in self.points],
            "at_target": at_target,
            "controls": {name: point.to_json() for name, point in self.controls.items()},
            "picked": picked,
        }


def front_from_json(values: Any) -> Front:
    """Read the values of front.json; unknown fields are ignored.

    Raises:
        UserError: If a newer version wrote it, or it is no front.
    """
    schema = values.get("schema") if isinstance(values, dict) else None
    if schema != SCHEMA:
        raise UserError(
            f"front.json must have schema {SCHEMA}, got {schema!r}; update paretoprune"
        )
    nested: dict[str, FieldReader] = {
        "requested": target_from_json,
        "dense": lambda v: record_from_json(DenseMetrics, v, "front.json, dense,", exact=False),
        "points": lambda v: tuple(evaluation_from_json(point) for point in v),
        "at_target": lambda v: evaluation_from_json(v) if v else None,
        "controls": lambda v: {name: evaluation_from_json(point) for name, point in v.items()},
    }
    try:
        front = record_from_json(Front, values, "front.json", nested=nested, exact=False)
    except UserError:
        raise
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(
            f"front.json must hold a front, got {error}; delete it: it is rebuilt from the journal"
        ) from None
    check_objectives(front)
    return front


def check_objectives(front: Front) -> None:
    """Raise UserError unless every objective is known and measured for every point."""
    points = [*front.points, *([front.at_target] if front.at_target else [])]
    for name in front.objectives:
        if name not in OBJECTIVE_SIGNS or any(getattr(point, name) is None for point in points):
            raise UserError(
                f"front.json must have objectives that were measured, got {name!r}; delete it: "
                "it is rebuilt from the journal"
            )


def objective_values(
    evaluation: Evaluation, objectives: Sequence[str] = OBJECTIVES
) -> tuple[float, ...]:
    """Return the values to maximise: accuracy, and each cost with a negative sign."""
    return tuple(OBJECTIVE_SIGNS[name] * getattr(evaluation, name) for name in objectives)


def dominates(
    first: Evaluation, second: Evaluation, objectives: Sequence[str] = OBJECTIVES
) -> bool:
    """Whether `first` is at least as good in every objective and better in one."""
    a, b = objective_values(first, objectives), objective_values(second, objectives)
    return a != b and all(one >= other for one, other in zip(a, b, strict=True))


def non_dominated(
    evaluations: Sequence[Evaluation], objectives: Sequence[str] = OBJECTIVES
) -> tuple[Evaluation, ...]:
    """Return the Pareto front, smallest FLOPs first; of equal evaluations, the first."""
    unique: dict[tuple[float, ...], Evaluation] = {}
    for evaluation in evaluations:
        unique.setdefault(objective_values(evaluation, objectives), evaluation)
    rows = list(unique.values())
    best = non_dominated_mask(np.array(list(unique)).reshape(len(unique), len(objectives)))
    points = [row for row, kept in zip(rows, best, strict=True) if kept]
    return tuple(sorted(points, key=lambda p: (p.macs, p.params, -p.accuracy)))


def front_hypervolume(evaluations: Sequence[Evaluation]) -> float:
    """Return the hypervolume of (accuracy, saved fraction of FLOPs) above (0, 0)."""
    rows = [(e.accuracy, 1 - e.flops_fraction) for e in evaluations]
    return hypervolume(np.array(rows).reshape(-1, 2), np.zeros(2))


def best_at_target(
    evaluations: Sequence[Evaluation], target: Target, dense: tuple[int, int]
) -> Evaluation | None:
    """Return the most accurate evaluation that meets the target (see `meets_target`), or None."""
    fitting = [e for e in evaluations if meets_target(e, target, dense)]
    if not fitting:
        return None
    return max(fitting, key=lambda e: (e.accuracy, -e.loss, -e.macs, -e.params))


def meets_target(evaluation: Evaluation, target: Target, dense: tuple[int, int]) -> bool:
    """Whether the cost is within every limit and at most 0.02 of dense below one of them."""
    actual = (evaluation.macs, evaluation.params)
    shares = zip(actual, dense, target.fractions(dense), strict=True)
    near = any(wanted is not None and wanted - a / d < TARGET_TOLERANCE for a, d, wanted in shares)
    return near and is_within_target(evaluation, target, dense)


def is_within_target(evaluation: Evaluation, target: Target, dense: tuple[int, int]) -> bool:
    """Whether the cost is within every limit."""
    actual, limits = (evaluation.macs, evaluation.params), target.limits(dense)
    return all(most is None or size <= most for size, most in zip(actual, limits, strict=True))
