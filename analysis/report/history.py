"""How the front grew: the hypervolume after each trial.

hv = volume of (accuracy, 1 - FLOPs, 1 - params) that the trials so far dominate, sizes as
fractions of dense; the reference is accuracy 0 at the dense size: hv is in [0, 1] for any network.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...spaces.evaluation import Evaluation
from ...spaces.front import dominates
from ...spaces.hypervolume import hypervolume

REFERENCE = np.zeros(3)


def hypervolumes(evaluations: Sequence[Evaluation]) -> list[float]:
    """After each of the evaluations, in their order."""
    front: tuple[Evaluation, ...] = ()
    values: list[float] = []
    for evaluation in evaluations:
        if any(dominates(p, evaluation) or p.objectives == evaluation.objectives for p in front):
            values.append(values[-1])
            continue
        front = (*(p for p in front if not dominates(evaluation, p)), evaluation)
        values.append(hypervolume(gains(front), REFERENCE))
    return values


def gains(front: Sequence[Evaluation]) -> np.typing.NDArray[np.float64]:
    """Accuracy and what is saved of both sizes, all to be maximised."""
    return np.array([(p.accuracy, 1 - p.flops_fraction, 1 - p.params_fraction) for p in front])
