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
from .screening import Proposal, Screen, at_once
from .search_space import PolicySpace
from .suggesters import Varied
from .target_plan import Slot

LEAST = 4  # finished trials, before any is worth a variation
SAVES = 0.95  # of the next better parent's size, at most, has a parent
NEAREST = 2  # points of the front, of which one is the parent
VARIATIONS = 24

Finished = Sequence[tuple[Evaluation, Mapping[str, Any]]]  # and the parameters of their policies


def refine(
    slot: Slot,
    finished: Finished,
    policy_space: PolicySpace,
    on: Screen,
    rng: np.random.Generator,
) -> Proposal | None:
    """A variation of one of the finished trials; None while they are too few."""
    if len(finished) < LEAST:
        return None
    parent, known = parent_of(slot, finished, on, rng)
    varied = [Varied(known, rng) for _ in range(VARIATIONS)]
    policies = [policy_space.sample(one) for one in varied]
    best = 0
    if on.known is not None and at_once(policies[0]):
        alike = [i for i, policy in enumerate(policies) if at_once(policy)]
        _, rises = on.foretell([policies[i] for i in alike], slot.target)
        best = alike[int(np.argmin(rises))]
    return Proposal(policies[best], f"refined:{parent.trial}", params=varied[best].answers)


def parent_of(
    slot: Slot, finished: Finished, on: Screen, rng: np.random.Generator
) -> tuple[Evaluation, Mapping[str, Any]]:
    """One of the front's points nearest in size."""
    params = {evaluation.trial: known for evaluation, known in finished}
    size = "params_fraction" if slot.target.flops is None else "flops_fraction"
    front = thinned([evaluation for evaluation, _ in finished], size)
    wanted = slot.target.fractions(on.space.price.dense)
    away = [
        max(
            abs(math.log(size / part))
            for size, part in zip((p.flops_fraction, p.params_fraction), wanted, strict=True)
            if part is not None
        )
        for p in front
    ]
    near = np.argsort(away, kind="stable")[:NEAREST]
    parent = front[int(rng.choice(near))]
    return parent, params[parent.trial]


def thinned(found: Sequence[Evaluation], size: str) -> list[Evaluation]:
    """Their front of accuracy and one size, best first, without those that save next to nothing
    against the next better.
    """
    kept: list[Evaluation] = []
    front = non_dominated(found, ("accuracy", size))
    for point in sorted(front, key=lambda point: -float(getattr(point, size))):
        if not kept or getattr(point, size) <= SAVES * getattr(kept[-1], size):
            kept.append(point)
    return kept
