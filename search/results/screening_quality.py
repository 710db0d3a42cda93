"""How well screening predicted what the trials then measured."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from ...spaces.records.pareto_front import Front
from ..storage.trial_records import TrialRecords

FloatArray = NDArray[np.float64]

ORIGIN_LABELS = {
    "transfer": "the earlier front",
    "own": "own scores",
    "preset": "presets",
    "screened": "screening",
    "refined": "variations",
    "sampled": "the sampler",
}
MIN_TRIALS_FOR_CORRELATION = 8  # trials, below which a rank correlation says nothing


def screening_correlation(records: TrialRecords) -> tuple[float | None, int]:
    """Rank correlation of predicted loss and fine-tuned accuracy, and of how many trials.

    What both owe to the size is taken out: that large networks are better is no foresight.
    """
    rows = [
        (-evaluation.predicted, evaluation.accuracy, evaluation.flops_fraction)
        for evaluation in records.evaluations_of("search")
        if evaluation.predicted is not None
    ]
    if len(rows) < MIN_TRIALS_FOR_CORRELATION:
        return None, len(rows)
    predicted, measured, size = np.array(rows).T
    return partial_rank_correlation(size.round(2), predicted, measured), len(rows)


def partial_rank_correlation(third: FloatArray, one: FloatArray, other: FloatArray) -> float:
    """Spearman's partial correlation of two rows of numbers, given a third."""
    ranked = [average_ranks(row) for row in (third, one, other)]
    first, second, both = (
        pearson_correlation(ranked[i], ranked[j]) for i, j in ((0, 1), (0, 2), (1, 2))
    )
    left = math.sqrt((1 - first**2) * (1 - second**2))
    return (both - first * second) / left if left > 1e-9 else both


def average_ranks(row: FloatArray) -> FloatArray:
    """The place of each number in their order; equal ones share the mean of their places."""
    _, place, counts = np.unique(row, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place])


def pearson_correlation(one: FloatArray, other: FloatArray) -> float:
    """Pearson's; 0 where one of them does not vary."""
    apart = one.std() * other.std()
    return float(np.mean((one - one.mean()) * (other - other.mean())) / apart) if apart else 0.0


def describe_screening(records: TrialRecords, front: Front) -> str:
    """A line on where the front came from, and on what screening predicted; empty where all of it
    was sampled.
    """
    kinds = Counter(str(point.origin).partition(":")[0] for point in front.points)
    counts = [f"{name} {kinds[kind]}" for kind, name in ORIGIN_LABELS.items() if kinds[kind]]
    screened = any(e.origin == "screened" for e in records.evaluations_of("search"))
    if not screened and set(kinds) <= {"sampled"}:
        return ""
    line = f"the front's points came from {', '.join(counts)}"
    if not screened:
        return line
    correlation, count = screening_correlation(records)
    if correlation is None:
        return f"{line}; finished trials that were predicted: {count}, too few to correlate"
    return (
        f"{line}; rank correlation of predicted and fine-tuned {correlation:.2f} "
        f"({count} trials, their size taken out)"
    )
