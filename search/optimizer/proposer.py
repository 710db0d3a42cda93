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
from .mutation import FinishedTrials, propose_mutation
from .plan import PlannedTrial, derive_seed
from .samplers import make_sampler
from .screening import (
    EvaluateUntrained,
    PolicyPredictor,
    Proposal,
    is_one_shot,
    never_late,
    screen_policies,
    with_default_recipe,
)
from .search_space import PolicySpace, own_scores

PROPOSAL_CYCLE = ("screened", "screened", "refined", "refined", "refined", "sampled")
MAX_SCREENED_TRIALS = 48  # slots at most; by then, variations of what is known are worth more

PredictPolicy = Callable[[Policy, Target], tuple[str, float | None] | None]
ProposeMutation = Callable[
    [PlannedTrial, int, FinishedTrials], Proposal | None
]  # slot, draw, what is finished


def never_mutate(planned: PlannedTrial, draw: int, finished: FinishedTrials) -> Proposal | None:
    """Every slot that no policy is proposed for is the sampler's."""
    return None


@dataclass(frozen=True, slots=True, eq=False)
class Proposer:
    """Where policies come from, and what can be told of one before it is carried out."""

    policy_space: PolicySpace
    initial: Mapping[int, Proposal]  # by slot
    predict: (
        PredictPolicy  # a hash of the mask and the foretold rise; None where only the trial tells
    )
    sampler: str
    seed: int
    mutate: ProposeMutation = never_mutate

    def sampler_for(self, slot: int, draw: int) -> optuna.samplers.BaseSampler:
        """A fresh sampler for one draw."""
        return make_sampler(self.sampler, derive_seed(self.seed, slot, draw))


def make_proposer(
    plan: Sequence[PlannedTrial],
    policy_space: PolicySpace,
    unfitted: PolicyPredictor,
    evaluate_untrained: EvaluateUntrained | None,
    *,
    sampler: str,
    seed: int,
    warm_start: Sequence[Proposal] = (),
    is_late: Callable[[], bool] = never_late,
) -> Proposer:
    """`also`, own scores and presets for the first slots at the target; then all in turn.

    What the user brings comes first: it is to be tried in the shortest search too.
    """
    presets = [
        Proposal(policy, f"preset:{name}")
        for name, policy in initial_presets(policy_space).items()
    ]
    first: dict[Policy, Proposal] = {}
    for one in (*warm_start, *own_score_proposals(policy_space), *presets):
        first.setdefault(one.policy, one)
    at_target, around = plan[::2], plan[1::2]
    opening = {slot.index: one for slot, one in zip(at_target, first.values(), strict=False)}
    turns = assign_strategies(at_target[len(opening) :]) | assign_strategies(around)
    screened = [slot for slot in plan if turns.get(slot.index) == "screened"][:MAX_SCREENED_TRIALS]
    refining = {index for index, turn in turns.items() if turn != "sampled"}
    rng = np.random.default_rng([seed, len(plan)])
    tried = [(opening[s.index].policy, s.target) for s in plan if s.index in opening]
    found, seeing = screen_policies(
        screened,
        policy_space,
        unfitted,
        evaluate_untrained,
        rng=rng,
        initial=tried,
        is_late=is_late,
    )

    def vary(slot: PlannedTrial, draw: int, finished: FinishedTrials) -> Proposal | None:
        if slot.index not in refining:
            return None
        rng = np.random.default_rng([seed, slot.index, draw])
        return propose_mutation(slot, finished, policy_space, seeing, rng)

    return Proposer(
        policy_space, opening | found, partial(predict_policy, seeing), sampler, seed, vary
    )


def assign_strategies(planned_trials: Sequence[PlannedTrial]) -> dict[int, str]:
    """Whose turn each of the slots is, by index."""
    return dict(zip((slot.index for slot in planned_trials), cycle(PROPOSAL_CYCLE), strict=False))


def initial_presets(policy_space: PolicySpace) -> dict[str, Policy]:
    """The presets that the space contains, with the usual recipe after their cut."""
    known = policy_space.presets.items()
    return {name: with_default_recipe(policy, policy_space) for name, policy in known}


def untried_presets(policy_space: PolicySpace, initial: Mapping[int, Proposal]) -> list[str]:
    """The presets that so few trials leave no slot at the target for."""
    tried = {one.policy for one in initial.values()}
    return [name for name, policy in initial_presets(policy_space).items() if policy not in tried]


def own_score_proposals(policy_space: PolicySpace) -> list[Proposal]:
    """The user's own scores, each tried before sampling begins."""
    proposals = []
    for name in own_scores(policy_space.scores):
        policy = with_default_recipe(Policy(name, floor=2), policy_space)
        if policy_space.params_of(policy) is not None:
            proposals.append(Proposal(policy, f"own:{name}"))
    return proposals


def predict_policy(
    predictor: PolicyPredictor, policy: Policy, target: Target
) -> tuple[str, float | None] | None:
    """A hash of the policy's mask and the foretold rise; None where only the trial tells."""
    if not is_one_shot(policy):
        return None
    masks, rises = predictor.predict([policy], target)
    if not np.isfinite(rises[0]):
        return None  # out of reach: the trial will say what prevents it
    mask = hashlib.sha256(np.packbits(masks[0]).tobytes()).hexdigest()[:16]
    return mask, None if predictor.loss_predictor is None else round(float(rises[0]), 6)
