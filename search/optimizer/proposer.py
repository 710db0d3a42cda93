"""Proposals: initial policies first, then screened, mutated and sampled policies in a cycle.

Initial policies are transferred policies, the user's own scores, and presets; each takes one
planned trial at the target. Presets are included so that a search is at least as good as the best
published method at equal cost. The other planned trials follow PROPOSAL_CYCLE, separately at the
target and around it.
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
MAX_SCREENED_TRIALS = 48  # mutations of finished trials are better after that

PredictPolicy = Callable[[Policy, Target], tuple[str, float | None] | None]
# Planned trial, number of the draw, finished trials.
ProposeMutation = Callable[[PlannedTrial, int, FinishedTrials], Proposal | None]


def never_mutate(planned: PlannedTrial, draw: int, finished: FinishedTrials) -> Proposal | None:
    """Propose no mutation, so the sampler proposes."""
    return None


@dataclass(frozen=True, slots=True, eq=False)
class Proposer:
    """Source of the policies, and of predictions about them before a trial runs."""

    policy_space: PolicySpace
    initial: Mapping[int, Proposal]  # by index in the plan
    predict: PredictPolicy  # see `predict_policy`
    sampler: str
    seed: int
    mutate: ProposeMutation = never_mutate

    def sampler_for(self, index: int, draw: int) -> optuna.samplers.BaseSampler:
        """Make the sampler for one draw of a planned trial."""
        return make_sampler(self.sampler, derive_seed(self.seed, index, draw))


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
    """Assign initial and screened policies to planned trials; the others are proposed later.

    The user's policies and scores come first, so that short searches try them too.

    Args:
        plan: The planned trials.
        policy_space: The policies to choose from.
        unfitted: A predictor that decodes masks but predicts no loss yet.
        evaluate_untrained: Measures untrained losses; None turns screening off.
        sampler: Name of the Optuna sampler.
        seed: Seed of the search.
        warm_start: Proposals from an earlier run.
        is_late: Whether screening should end early.

    Returns:
        The proposer of the search.
    """
    presets = [
        Proposal(policy, f"preset:{name}")
        for name, policy in initial_presets(policy_space).items()
    ]
    candidates: dict[Policy, Proposal] = {}
    for proposal in (*warm_start, *own_score_proposals(policy_space), *presets):
        candidates.setdefault(proposal.policy, proposal)
    at_target, around = plan[::2], plan[1::2]
    initial = {
        planned.index: proposal
        for planned, proposal in zip(at_target, candidates.values(), strict=False)
    }
    strategies = assign_strategies(at_target[len(initial) :]) | assign_strategies(around)
    to_screen = [p for p in plan if strategies.get(p.index) == "screened"][:MAX_SCREENED_TRIALS]
    may_mutate = {index for index, strategy in strategies.items() if strategy != "sampled"}
    screened, predictor = screen_policies(
        to_screen,
        policy_space,
        unfitted,
        evaluate_untrained,
        rng=np.random.default_rng([seed, len(plan)]),
        initial=[(initial[p.index].policy, p.target) for p in plan if p.index in initial],
        is_late=is_late,
    )

    def mutate(planned: PlannedTrial, draw: int, finished: FinishedTrials) -> Proposal | None:
        if planned.index not in may_mutate:
            return None
        rng = np.random.default_rng([seed, planned.index, draw])
        return propose_mutation(planned, finished, policy_space, predictor, rng)

    predict = partial(predict_policy, predictor)
    return Proposer(policy_space, initial | screened, predict, sampler, seed, mutate)


def assign_strategies(planned_trials: Sequence[PlannedTrial]) -> dict[int, str]:
    """Return the strategy of each planned trial, by index."""
    return dict(
        zip((planned.index for planned in planned_trials), cycle(PROPOSAL_CYCLE), strict=False)
    )


def initial_presets(policy_space: PolicySpace) -> dict[str, Policy]:
    """Return the presets that the space contains, with the default recipe."""
    presets = policy_space.presets.items()
    return {name: with_default_recipe(policy, policy_space) for name, policy in presets}


def untried_presets(policy_space: PolicySpace, initial: Mapping[int, Proposal]) -> list[str]:
    """Return the names of the presets for which the plan has too few trials."""
    tried = {one.policy for one in initial.values()}
    return [name for name, policy in initial_presets(policy_space).items() if policy not in tried]


def own_score_proposals(policy_space: PolicySpace) -> list[Proposal]:
    """Return one proposal for each of the user's own scores."""
    proposals = []
    for name in own_scores(policy_space.scores):
        policy = with_default_recipe(Policy(name, floor=2), policy_space)
        if policy_space.params_of(policy) is not None:
            proposals.append(Proposal(policy, f"own:{name}"))
    return proposals


def predict_policy(
    predictor: PolicyPredictor, policy: Policy, target: Target
) -> tuple[str, float | None] | None:
    """Predict the mask and the loss of a policy before its trial.

    Returns:
        A hash of the mask, and the predicted increase of the loss (None before the predictor is
        fitted). None if the mask is not known before the trial.
    """
    if not is_one_shot(policy):
        return None
    masks, rises = predictor.predict([policy], target)
    if not np.isfinite(rises[0]):
        return None  # the target is out of reach: the trial reports why
    mask = hashlib.sha256(np.packbits(masks[0]).tobytes()).hexdigest()[:16]
    return mask, None if predictor.loss_predictor is None else round(float(rises[0]), 6)
