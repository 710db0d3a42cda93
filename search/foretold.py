"""How well screening foretold what the trials then measured."""

from __future__ import annotations

from collections import Counter

import numpy as np

from ..analysis.ensembles.scoring import rank_correlation
from ..spaces.front import Front
from .reading import Record, job_of

FEWEST = 8  # trials at one size, below which a rank correlation says nothing


def agreement(record: Record) -> tuple[float | None, int]:
    """Rank correlation of foretold loss and fine-tuned accuracy at the target, and of how many."""
    targets = {t.number: job.slot % 2 == 0 for t in record.trials("search") if (job := job_of(t))}
    pairs = [
        (evaluation.predicted, evaluation.accuracy)
        for evaluation in record.evaluations_of("search")
        if evaluation.predicted is not None and targets.get(evaluation.trial or 0, False)
    ]
    if len(pairs) < FEWEST:
        return None, len(pairs)
    predicted, accuracy = np.array(pairs).T
    return rank_correlation(-predicted, accuracy), len(pairs)


def told_of_screening(record: Record, front: Front) -> str:
    """A line on what screening was worth in this search; empty if it was not done."""
    kinds = Counter(str(point.origin).partition(":")[0] for point in front.points)
    if not any(e.origin == "screened" for e in record.evaluations_of("search")):
        return ""
    line = (
        f"of the front's {len(front.points)} points {kinds['screened']} came from screening, "
        f"{kinds['refined']} from variations"
    )
    correlation, count = agreement(record)
    if correlation is not None:
        line += (
            f"; rank correlation of foretold and fine-tuned {correlation:.2f} "
            f"({count} trials at the target)"
        )
    return line
