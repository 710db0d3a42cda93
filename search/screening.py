"""Screening: thousands of policies are decoded, priced and foretold before the first trial.

Every slot of the plan that is to be screened gets candidates decoded at its own target. The tenth
with the least foretold loss is its shortlist; of those that no other beats in both the loss and
the parameters, the one farthest (in atoms) from what was taken before is tried, so that the trials
are not all of the same network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..analysis.ensembles import Surrogate
from ..spaces.decode import Space, decode_many
from ..spaces.evidence import Evidence
from ..spaces.hypervolume import on_front
from ..spaces.policy import Policy
from ..spaces.target import Target
from .answers import Drawn
from .plan import Slot
from .policy_space import PolicySpace

POLICIES = 4096  # decoded in all
LEAST = 64  # for one slot
SHORTLIST = 0.1  # the share of a slot's candidates, by foretold loss, that diversity chooses from

Masks = NDArray[np.bool_]
Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A policy for one slot, where it comes from, and what the surrogate foretells of it."""

    policy: Policy
    origin: str  # transfer:TRIAL, preset:NAME, own:SCORE, screened or sampled
    predicted: float | None = None  # rise of the loss


@dataclass(frozen=True, slots=True, eq=False)
class Screen:
    """What screening looks at."""

    space: Space
    evidence: Evidence
    surrogate: Surrogate | None  # None: nothing is foretold, masks are only told apart

    def foretell(
        self, policies: Sequence[Policy], target: Target
    ) -> tuple[Masks, NDArray[np.float64]]:
        """Masks [n, A] of the policies that reach the target, and their foretold loss [n].

        Policies out of reach have a foretold loss of infinity.
        """
        masks, reachable = decode_many(
            policies, [target] * len(policies), self.evidence, self.space
        )
        known = np.zeros(len(masks)) if self.surrogate is None else self.surrogate.means(masks)
        return masks, np.where(reachable, known, np.inf)


def screen(
    slots: Sequence[Slot], policy_space: PolicySpace, on: Screen, *, rng: np.random.Generator
) -> dict[int, Proposal]:
    """The best diverse policy for each of the slots, by slot index."""
    if not slots or on.surrogate is None:
        return {}
    count = max(LEAST, POLICIES // len(slots))
    taken: list[NDArray[np.bool_]] = []
    found: dict[int, Proposal] = {}
    for slot in slots:
        policies = at_once(policy_space, count, rng)
        if not policies:
            break
        masks, predicted = on.foretell(policies, slot.target)
        best = pick(masks, predicted, on.space.price.of(masks)[:, 1], taken)
        if best is not None:
            taken.append(masks[best])
            policy = usually_tuned(policies[best])
            found[slot.index] = Proposal(policy, "screened", float(predicted[best]))
    return found


def usually_tuned(policy: Policy) -> Policy:
    """The policy with the usual recipe of the fine-tune: nothing foretells which is best."""
    usual = Policy(policy.score)
    return replace(policy, learning_rate=usual.learning_rate, distill=usual.distill)


def at_once(policy_space: PolicySpace, count: int, rng: np.random.Generator) -> list[Policy]:
    """Random policies whose mask is known before they are carried out, `count` draws at most."""
    if "one-shot" not in policy_space.schedules:
        return []
    drawn = (policy_space.sample(Drawn(rng)) for _ in range(2 * count))
    return [p for p in drawn if p.schedule == "one-shot" and p.allocation != "uniform"][:count]


def pick(
    masks: Masks,
    predicted: Values,
    params: NDArray[np.int64],
    taken: Sequence[NDArray[np.bool_]],
) -> int | None:
    """The row to try: of the shortlist, that farthest from what was taken; None if all are out."""
    reached = np.flatnonzero(np.isfinite(predicted))
    if not len(reached):
        return None
    order = reached[np.argsort(predicted[reached], kind="stable")]
    order = order[: max(1, int(SHORTLIST * len(order)))]
    if not taken:
        return int(order[0])
    goals = -np.stack((predicted[order], params[order].astype(np.float64)), axis=1)
    order = order[on_front(goals)]
    apart = (masks[order][:, None, :] != np.stack(taken)).sum(axis=2).min(axis=1)
    return int(order[int(np.argmax(apart))])
