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

from ..spaces.evaluation import Evaluation
from ..spaces.front import non_dominated
from .answers import Drawn
from .plan import Slot
from .policy_space import PolicySpace
from .screening import Proposal, Screen

LEAST = 4  # finished trials, before any is worth a variation
GOALS = ("accuracy", "flops_fraction")
SAVES = 0.95  # of the next better parent's FLOPs, at most, has a parent
NEAREST = 2  # points of the front, of which one is the parent
VARIATIONS = 24
CHANGED = 0.2  # the chance of each choice to be another
MOVED = 0.15  # of a number's range, the standard deviation of a change

Finished = Sequence[tuple[Evaluation, Mapping[str, Any]]]  # and the parameters of their policies


class Varied:
    """Answers with known choices, save for those that chance changes; keeps its answers."""

    def __init__(self, known: Mapping[str, Any], rng: np.random.Generator) -> None:
        self._known, self._rng, self._drawn = known, rng, Drawn(rng)
        self.answers: dict[str, Any] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """The known choice, or any."""
        if self._stays(name) and self._known[name] in choices:
            return self._note(name, self._known[name])
        return self._note(name, self._drawn.suggest_categorical(name, choices))

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """The known number, or one near it."""
        if name not in self._known:
            return float(self._note(name, self._drawn.suggest_float(name, low, high, log=log)))
        known = min(max(float(self._known[name]), low), high)
        if not self._stays(name):
            step = MOVED * self._rng.standard_normal()
            known = known * (high / low) ** step if log else known + (high - low) * step
        return float(self._note(name, min(max(known, low), high)))

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """The known number, or any."""
        if self._stays(name) and low <= self._known[name] <= high:
            return int(self._note(name, int(self._known[name])))
        return int(self._note(name, self._drawn.suggest_int(name, low, high)))

    def _note(self, name: str, value: Any) -> Any:
        self.answers[name] = value
        return value

    def _stays(self, name: str) -> bool:
        return name in self._known and self._rng.random() >= CHANGED


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
    if on.known is not None and policies[0].schedule == "one-shot":
        alike = [i for i, policy in enumerate(policies) if policy.schedule == "one-shot"]
        _, rises = on.foretell([policies[i] for i in alike], slot.target)
        best = alike[int(np.argmin(rises))]
    return Proposal(policies[best], f"refined:{parent.trial}", params=varied[best].answers)


def parent_of(
    slot: Slot, finished: Finished, on: Screen, rng: np.random.Generator
) -> tuple[Evaluation, Mapping[str, Any]]:
    """One of the front's points nearest in size."""
    params = {evaluation.trial: known for evaluation, known in finished}
    front = thinned(non_dominated([evaluation for evaluation, _ in finished], GOALS))
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


def thinned(front: Sequence[Evaluation]) -> list[Evaluation]:
    """The front, best first, without those that save next to nothing against the next better."""
    kept: list[Evaluation] = []
    for point in reversed(front):
        if not kept or point.flops_fraction <= SAVES * kept[-1].flops_fraction:
            kept.append(point)
    return kept
