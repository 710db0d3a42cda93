"""Who proposes the policies: transferred ones, own scores and presets, then others in turn.

A slot at the target is given to one of the first while there are any; presets are among them so
that no search is worse than the best paper's method at equal cost of a trial. Of six turns after
that, two are of screened policies, three of variations of the best that is known by then, and one
is the sampler's; turns are taken at the target and around it, each for itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle

import numpy as np
import optuna

from ...spaces.cost.target import Target
from ...spaces.policy.policy import Policy
from .mutation import Finished, refine
from .samplers import make_sampler
from .screening import Proposal, Rehearse, Screen, at_once, never, screen, usually_tuned
from .search_space import PolicySpace, own_scores
from .target_plan import Slot, derived_seed

TURNS = ("screened", "screened", "refined", "refined", "refined", "sampled")
SCREENED = 48  # slots at most; by then, variations of what is known are worth more

Look = Callable[[Policy, Target], tuple[str, float | None] | None]
Vary = Callable[[Slot, int, Finished], Proposal | None]  # slot, draw, what is finished


def no_variation(slot: Slot, draw: int, finished: Finished) -> Proposal | None:
    """Every slot that no policy is proposed for is the sampler's."""
    return None


@dataclass(frozen=True, slots=True, eq=False)
class Proposer:
    """Where policies come from, and what can be told of one before it is carried out."""

    policy_space: PolicySpace
    opening: Mapping[int, Proposal]  # by slot
    look: Look  # a hash of the mask and the foretold rise; None where only the trial tells
    sampler: str
    seed: int
    vary: Vary = no_variation

    def sampler_for(self, slot: int, draw: int) -> optuna.samplers.BaseSampler:
        """A fresh sampler for one draw."""
        return make_sampler(self.sampler, derived_seed(self.seed, slot, draw))


def make_proposer(
    plan: Sequence[Slot],
    policy_space: PolicySpace,
    blind: Screen,
    rehearse: Rehearse | None,
    *,
    sampler: str,
    seed: int,
    also: Sequence[Proposal] = (),
    late: Callable[[], bool] = never,
) -> Proposer:
    """`also`, own scores and presets for the first slots at the target; then all in turn.

    What the user brings comes first: it is to be tried in the shortest search too.
    """
    presets = [
        Proposal(policy, f"preset:{name}")
        for name, policy in opening_presets(policy_space).items()
    ]
    first: dict[Policy, Proposal] = {}
    for one in (*also, *own_proposals(policy_space), *presets):
        first.setdefault(one.policy, one)
    at_target, around = plan[::2], plan[1::2]
    opening = {slot.index: one for slot, one in zip(at_target, first.values(), strict=False)}
    turns = turns_of(at_target[len(opening) :]) | turns_of(around)
    screened = [slot for slot in plan if turns.get(slot.index) == "screened"][:SCREENED]
    refining = {index for index, turn in turns.items() if turn != "sampled"}
    rng = np.random.default_rng([seed, len(plan)])
    tried = [(opening[s.index].policy, s.target) for s in plan if s.index in opening]
    found, seeing = screen(
        screened, policy_space, blind, rehearse, rng=rng, opening=tried, late=late
    )

    def vary(slot: Slot, draw: int, finished: Finished) -> Proposal | None:
        if slot.index not in refining:
            return None
        rng = np.random.default_rng([seed, slot.index, draw])
        return refine(slot, finished, policy_space, seeing, rng)

    return Proposer(policy_space, opening | found, partial(look, seeing), sampler, seed, vary)


def turns_of(slots: Sequence[Slot]) -> dict[int, str]:
    """Whose turn each of the slots is, by index."""
    return dict(zip((slot.index for slot in slots), cycle(TURNS), strict=False))


def opening_presets(policy_space: PolicySpace) -> dict[str, Policy]:
    """The presets that the space contains, with the usual recipe after their cut."""
    known = policy_space.presets.items()
    return {name: usually_tuned(policy, policy_space) for name, policy in known}


def crowded_out(policy_space: PolicySpace, opening: Mapping[int, Proposal]) -> list[str]:
    """The presets that so few trials leave no slot at the target for."""
    tried = {one.policy for one in opening.values()}
    return [name for name, policy in opening_presets(policy_space).items() if policy not in tried]


def own_proposals(policy_space: PolicySpace) -> list[Proposal]:
    """The user's own scores, each tried before sampling begins."""
    proposals = []
    for name in own_scores(policy_space.scores):
        policy = usually_tuned(Policy(name, floor=2), policy_space)
        if policy_space.params_of(policy) is not None:
            proposals.append(Proposal(policy, f"own:{name}"))
    return proposals


def look(on: Screen, policy: Policy, target: Target) -> tuple[str, float | None] | None:
    """A hash of the policy's mask and the foretold rise; None where only the trial tells."""
    if not at_once(policy):
        return None
    masks, rises = on.foretell([policy], target)
    if not np.isfinite(rises[0]):
        return None  # out of reach: the trial will say what prevents it
    mask = hashlib.sha256(np.packbits(masks[0]).tobytes()).hexdigest()[:16]
    return mask, None if on.known is None else round(float(rises[0]), 6)
