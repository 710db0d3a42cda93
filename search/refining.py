"""Refining: policies near the best that is known, carried to the size of a slot.

The parent is one of the trials on the front that are nearest in size. Most of its choices stay, a
few are drawn anew or, if numbers, moved a little; of some dozen such variations the one whose mask
the surrogate foretells best is tried.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..spaces.evaluation import Evaluation
from ..spaces.front import non_dominated
from ..spaces.policy import Policy
from .answers import Drawn
from .plan import Slot
from .policy_space import PolicySpace
from .screening import Proposal, Screen

LEAST = 4  # finished trials, before any is worth a variation
NEAREST = 2  # points of the front, of which one is the parent
VARIATIONS = 24
CHANGED = 0.2  # the chance of each choice to be another
MOVED = 0.15  # of a number's range, the standard deviation of a change


class Varied:
    """Answers with known choices, save for those that chance changes."""

    def __init__(self, known: Mapping[str, Any], rng: np.random.Generator) -> None:
        self._known, self._rng, self._drawn = known, rng, Drawn(rng)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """The known choice, or any."""
        if self._stays(name) and self._known[name] in choices:
            return self._known[name]
        return self._drawn.suggest_categorical(name, choices)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """The known number, or one near it."""
        if name not in self._known:
            return self._drawn.suggest_float(name, low, high, log=log)
        known = min(max(float(self._known[name]), low), high)
        if self._stays(name):
            return known
        step = MOVED * self._rng.standard_normal()
        if log:
            return float(np.clip(known * (high / low) ** step, low, high))
        return float(np.clip(known + (high - low) * step, low, high))

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """The known number, or any."""
        if self._stays(name) and low <= self._known[name] <= high:
            return int(self._known[name])
        return self._drawn.suggest_int(name, low, high)

    def _stays(self, name: str) -> bool:
        return name in self._known and self._rng.random() >= CHANGED


def refine(
    slot: Slot,
    finished: Sequence[tuple[Evaluation, Mapping[str, Any]]],
    policy_space: PolicySpace,
    on: Screen,
    rng: np.random.Generator,
) -> Proposal | None:
    """A variation of one of the finished trials, given with their parameters; None if too few."""
    if len(finished) < LEAST:
        return None
    parent, known = parent_of(slot, finished, on, rng)
    policies = [policy_space.sample(Varied(known, rng)) for _ in range(VARIATIONS)]
    best = foretold_best(policies, slot, on)
    return Proposal(policies[best], f"refined:{parent.trial}")


def parent_of(
    slot: Slot,
    finished: Sequence[tuple[Evaluation, Mapping[str, Any]]],
    on: Screen,
    rng: np.random.Generator,
) -> tuple[Evaluation, Mapping[str, Any]]:
    """One of the front's points nearest in size."""
    params = {evaluation.trial: known for evaluation, known in finished}
    front = non_dominated([evaluation for evaluation, _ in finished], ("accuracy", "flops"))
    fractions = slot.target.fractions(on.space.price.dense)
    sizes = [(p.flops_fraction, p.params_fraction) for p in front]
    away = [
        max(abs(math.log(a / b)) for a, b in zip(size, fractions, strict=True) if b is not None)
        for size in sizes
    ]
    near = np.argsort(away, kind="stable")[:NEAREST]
    parent = front[int(rng.choice(near))]
    return parent, params[parent.trial]


def foretold_best(policies: Sequence[Policy], slot: Slot, on: Screen) -> int:
    """The one with the least foretold loss, if masks are foretold; else the first."""
    known = [i for i, p in enumerate(policies) if p.schedule == "one-shot"]
    if on.surrogate is None or policies[0].schedule != "one-shot" or not known:
        return 0
    _, predicted = on.foretell([policies[i] for i in known], slot.target)
    return known[int(np.argmin(predicted))]
