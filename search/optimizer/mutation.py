"""Mutation of finished trials: policies near the front, decoded for a planned trial's target.

The parent is one of the trials on the front that are nearest in size. A trial that is hardly
smaller than a more accurate one is no parent. Each mutation keeps most of the parent's parameters,
redraws a few and perturbs a few numbers. Of `MUTATIONS_PER_PROPOSAL` mutations, the one with the
least predicted loss is proposed.
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

MIN_FINISHED_TRIALS = 4  # before the first mutation
MAX_PARENT_SIZE_RATIO = 0.95  # to the next more accurate parent's size
PARENT_CANDIDATES = 2  # points of the front from which the parent is drawn
MUTATIONS_PER_PROPOSAL = 24

# Finished trials with the Optuna parameters of their policies.
FinishedTrials = Sequence[tuple[Evaluation, Mapping[str, Any]]]


def propose_mutation(
    planned: PlannedTrial,
    finished: FinishedTrials,
    policy_space: PolicySpace,
    predictor: PolicyPredictor,
    rng: np.random.Generator,
) -> Proposal | None:
    """Propose a mutation of one of the finished trials; None while there are too few."""
    if len(finished) < MIN_FINISHED_TRIALS:
        return None
    parent, params = choose_parent(planned, finished, predictor, rng)
    mutations = [MutatingSuggester(params, rng) for _ in range(MUTATIONS_PER_PROPOSAL)]
    policies = [policy_space.sample(mutation) for mutation in mutations]
    best = 0
    if predictor.loss_predictor is not None and is_one_shot(policies[0]):
        one_shot = [i for i, policy in enumerate(policies) if is_one_shot(policy)]
        _, rises = predictor.predict([policies[i] for i in one_shot], planned.target)
        best = one_shot[int(np.argmin(rises))]
    return Proposal(policies[best], f"refined:{parent.trial}", params=mutations[best].params)


def choose_parent(
    planned: PlannedTrial,
    finished: FinishedTrials,
    predictor: PolicyPredictor,
    rng: np.random.Generator,
) -> tuple[Evaluation, Mapping[str, Any]]:
    """Draw one of the points of the front that are nearest in size, with its parameters."""
    params_by_trial = {evaluation.trial: params for evaluation, params in finished}
    size = "params_fraction" if planned.target.flops is None else "flops_fraction"
    front = thin_front([evaluation for evaluation, _ in finished], size)
    target = planned.target.fractions(predictor.space.cost_model.dense)
    distances = [
        max(
            abs(math.log(fraction / part))
            for fraction, part in zip((p.flops_fraction, p.params_fraction), target, strict=True)
            if part is not None
        )
        for p in front
    ]
    nearest = np.argsort(distances, kind="stable")[:PARENT_CANDIDATES]
    parent = front[int(rng.choice(nearest))]
    return parent, params_by_trial[parent.trial]


def thin_front(evaluations: Sequence[Evaluation], size: str) -> list[Evaluation]:
    """Return the front of accuracy and one size, most accurate first.

    Drops each point that is larger than MAX_PARENT_SIZE_RATIO times the point before it.
    """
    kept: list[Evaluation] = []
    front = non_dominated(evaluations, ("accuracy", size))
    for point in sorted(front, key=lambda point: -float(getattr(point, size))):
        if not kept or getattr(point, size) <= MAX_PARENT_SIZE_RATIO * getattr(kept[-1], size):
            kept.append(point)
    return kept
