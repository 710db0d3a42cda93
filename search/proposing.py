"""Who proposes the policies: transferred ones, own scores and presets, then screened and sampled.

A slot at the target is given to one of the first while there are any; presets are among them so
that no search is worse than the best paper's method at equal cost of a trial. Of the slots that
are left, every other one gets a screened policy, the others are the sampler's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna

from ..spaces.policy import Policy
from ..spaces.target import Target
from .plan import Slot, derived_seed
from .policy_space import PolicySpace, own_scores
from .sampling import make_sampler
from .screening import Proposal, Screen, screen

Look = Callable[[Policy, Target], tuple[str, float | None] | None]


@dataclass(frozen=True, slots=True, eq=False)
class Proposer:
    """Where policies come from, and what can be told of one before it is carried out."""

    policy_space: PolicySpace
    opening: Mapping[int, Proposal]  # by slot
    look: Look  # a hash of the mask and the foretold loss; None where only the trial tells
    sampler: str
    seed: int

    def sampler_for(self, slot: int, draw: int) -> optuna.samplers.BaseSampler:
        """A fresh sampler for one draw."""
        return make_sampler(self.sampler, derived_seed(self.seed, slot, draw))


def make_proposer(
    plan: Sequence[Slot],
    policy_space: PolicySpace,
    on: Screen,
    *,
    sampler: str,
    seed: int,
    also: Sequence[Proposal] = (),
) -> Proposer:
    """`also`, own scores and presets for the first slots at the target, then half screened."""
    first = [
        *also,
        *own_proposals(policy_space),
        *(Proposal(policy, f"preset:{name}") for name, policy in policy_space.presets.items()),
    ]
    at_target = [slot for slot in plan if slot.index % 2 == 0]
    opening = {slot.index: one for slot, one in zip(at_target, first, strict=False)}
    rest = [slot for slot in plan if slot.index not in opening]
    screened = [slot for place, slot in enumerate(rest) if (place // 2) % 2 == 0]
    rng = np.random.default_rng([seed, len(plan)])
    opening |= screen(screened, policy_space, on, rng=rng)
    return Proposer(policy_space, opening, looking_at(on), sampler, seed)


def own_proposals(policy_space: PolicySpace) -> list[Proposal]:
    """The user's own scores, each tried before sampling begins."""
    proposals = []
    for name in own_scores(policy_space.scores):
        policy = Policy(name, floor=2)
        if policy_space.params_of(policy) is not None:
            proposals.append(Proposal(policy, f"own:{name}"))
    return proposals


def looking_at(on: Screen) -> Look:
    """What the mask of a policy is, where that is known beforehand."""

    def look(policy: Policy, target: Target) -> tuple[str, float | None] | None:
        if policy.schedule != "one-shot":
            return None
        masks, predicted = on.foretell([policy], target)
        if not np.isfinite(predicted[0]):
            return None  # out of reach: the trial will say what prevents it
        mask = hashlib.sha256(np.packbits(masks[0]).tobytes()).hexdigest()[:16]
        return mask, None if on.surrogate is None else round(float(predicted[0]), 6)

    return look
