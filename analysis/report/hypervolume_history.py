"""Hypervolume of the front (accuracy against FLOPs saved) after each trial."""

from __future__ import annotations

from collections.abc import Sequence

from ...spaces.records.evaluation import Evaluation
from ...spaces.records.pareto_front import dominates, front_hypervolume


def hypervolume_history(evaluations: Sequence[Evaluation]) -> list[float]:
    """Hypervolume after each evaluation, in order; a dominated evaluation leaves it unchanged."""
    front: tuple[Evaluation, ...] = ()
    values: list[float] = []
    for evaluation in evaluations:
        if not any(dominates(point, evaluation) for point in front):
            front = (*(p for p in front if not dominates(evaluation, p)), evaluation)
        values.append(front_hypervolume(front))
    return values
