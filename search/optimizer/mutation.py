"""Refining: policies near the best that is known, carried to the size of a slot.

The parent is one of the trials on the front that are nearest in size; one that saves next to
nothing against a more accurate one is none. Most of the parent's choices stay, a few are drawn
anew or, if numbers, moved a little; of two dozen such variations the one that is foretold best is
tried.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...spaces.records.evaluation import Evaluation
from ...spaces.records.pareto_front import non_dominated
from .plan import PlannedTrial
from .screening import PolicyPredictor, Proposal, is_one_shot
from .search_space import PolicySpace
from .suggesters import MutatingSuggester

MIN_FINISHED_TRIALS = 4  # finished trials, before any is worth a variation
MAX_PARENT_SIZE_RATIO = 0.95  # of the next better parent's size, at most, has a parent
PARENT_CANDIDATES = 2  # points of the front, of which one is the parent
MUTATIONS_PER_PROPOSAL = 24

FinishedTrials = Sequence[
    tuple[Evaluation, Mapping[str, Any]]
]  # and the parameters of their policies


def propose_mutation(
    planned: PlannedTrial,
    finished: FinishedTrials,
    policy_space: PolicySpace,
    predictor: PolicyPredictor,
    rng: np.random.Generator,
) -> Proposal | None:
    """A variation of one of the finished trials; None while they are too few."""
    if len(finished) < MIN_FINISHED_TRIALS:
        return None
    parent, known = choose_parent(planned, finished, predictor, rng)
    varied = [MutatingSuggester(known, rng) for _ in range(MUTATIONS_PER_PROPOSAL)]
    policies = [policy_space.sample(one) for one in varied]
    best = 0
    if predictor.loss_predictor is not None and is_one_shot(policies[0]):
        alike = [i for i, policy in enumerate(policies) if is_one_shot(policy)]
        _, rises = predictor.predict([policies[i] for i in alike], planned.target)
        best = alike[int(np.argmin(rises))]
    return Proposal(policies[best], f"refined:{parent.trial}", params=varied[best].params)


def choose_parent(
    planned: PlannedTrial,
    finished: FinishedTrials,
    predictor: PolicyPredictor,
    rng: np.random.Generator,
) -> tuple[Evaluation, Mapping[str, Any]]:
    """One of the front's points nearest in size."""
    params = {evaluation.trial: known for evaluation, known in finished}
    size = "params_fraction" if planned.target.flops is None else "flops_fraction"
    front = thin_front([evaluation for evaluation, _ in finished], size)
    wanted = planned.target.fractions(predictor.space.cost_model.dense)
    away = [
        max(
            abs(math.log(size / part))
            for size, part in zip((p.flops_fraction, p.params_fraction), wanted, strict=True)
            if part is not None
        )
        for p in front
    ]
    near = np.argsort(away, kind="stable")[:PARENT_CANDIDATES]
    parent = front[int(rng.choice(near))]
    return parent, params[parent.trial]


def thin_front(found: Sequence[Evaluation], size: str) -> list[Evaluation]:
    """Their front of accuracy and one size, best first, without those that save next to nothing
    against the next better.
    """
    kept: list[Evaluation] = []
    front = non_dominated(found, ("accuracy", size))
    for point in sorted(front, key=lambda point: -float(getattr(point, size))):
        if not kept or getattr(point, size) <= MAX_PARENT_SIZE_RATIO * getattr(kept[-1], size):
            kept.append(point)
    return kept
