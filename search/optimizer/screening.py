"""Screening: rank thousands of policies by their predicted untrained loss before the first trial.

1. Decode random candidates and presets to masks, for each target.
2. Evaluate some of the masks untrained: prune the network and measure its loss.
3. Fit a predictor to these losses. Evaluate the candidates with the least predicted loss.
4. For some generations, mutate the best candidates and repeat step 3.
5. Of the candidates whose loss ties with a target's best, choose the mask that differs in most
   atoms from the masks chosen before, so that trials are of different networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...analysis.untrained_loss import UntrainedLossPredictor, fit_untrained_loss_predictor
from ...spaces.allocations.decode import PruningSpace, decode_policies
from ...spaces.cost.target import Target
from ...spaces.policy.layer_scores import combine_layers
from ...spaces.policy.measurements import Measurements
from ...spaces.policy.policy import Policy
from .plan import PlannedTrial
from .search_space import PolicySpace
from .suggesters import MutatingSuggester, RandomSuggester

CANDIDATES_IN_ALL = 2048  # over all targets
MIN_CANDIDATES_PER_TARGET = 64
INITIAL_EVALUATIONS = 96  # masks evaluated before the predictor is fitted
EVALUATED_PER_GENERATION = 4  # candidates of a target
GENERATIONS = 4  # of mutations
PARENTS_PER_TARGET, MUTATIONS_PER_PARENT = 3, 24
MAX_DRAWS_PER_POLICY = 6  # random draws for each one-shot policy wanted
LOSS_TIE_TOLERANCE = 0.04  # about the standard error of an untrained loss
GROUP_WEIGHT_SCORE = "taylor"  # weighs the atoms that a mask removes from a group

Masks = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
SuggestedParams = Mapping[str, Any]
PolicyWithParams = tuple[Policy, SuggestedParams]  # a policy and its Optuna parameters
EvaluateUntrained = Callable[[Masks], FloatArray]


def never_late() -> bool:
    """Return False: no time limit."""
    return False


@dataclass(frozen=True, slots=True)
class Proposal:
    """A policy for one planned trial, its origin and its predicted loss."""

    policy: Policy
    origin: str  # transfer:TRIAL, preset:NAME, own:SCORE, screened, refined:TRIAL or sampled
    predicted: float | None = None  # increase of the loss over the dense network's
    params: SuggestedParams | None = None  # None: derive them with `PolicySpace.params_of`


@dataclass(frozen=True, slots=True, eq=False)
class PolicyPredictor:
    """Decodes policies to masks, and predicts their untrained loss once it is fitted."""

    space: PruningSpace
    measurements: Measurements
    loss_predictor: UntrainedLossPredictor | None = None  # None: predicts no loss
    dense_loss: float = 0.0

    def predict(self, policies: Sequence[Policy], target: Target) -> tuple[Masks, FloatArray]:
        """Return masks [n, A] of the policies and predicted increases [n] of the loss.

        The increase is infinite for policies that cannot reach the target.
        """
        masks, reachable = self.decode_masks(policies, target)
        return masks, np.where(reachable, self.predict_rises(masks), np.inf)

    def decode_masks(
        self, policies: Sequence[Policy], target: Target
    ) -> tuple[Masks, NDArray[np.bool_]]:
        """Return masks [n, A] of the policies, and which of them [n] reach the target."""
        return decode_policies(policies, [target] * len(policies), self.measurements, self.space)

    def masks_from_keys(self, keys: Iterable[bytes]) -> Masks:
        """Return masks [n, A] from their bytes."""
        atoms = self.space.channel_map.atoms
        return np.frombuffer(b"".join(keys), dtype=bool).reshape(-1, atoms)

    def fit(self, evaluated: UntrainedLosses) -> PolicyPredictor:
        """Return a copy that is fitted to all evaluated losses."""
        masks = self.masks_from_keys(evaluated.losses)
        losses = np.array(list(evaluated.losses.values()))
        channel_map, weights = self.space.channel_map, np.ones(masks.shape[1])
        if GROUP_WEIGHT_SCORE in self.measurements.scores:
            scores = self.measurements.scores[GROUP_WEIGHT_SCORE]
            weights = combine_layers(scores, channel_map, "sum")
        fitted = fit_untrained_loss_predictor(masks, losses, weights, channel_map)
        return replace(self, loss_predictor=fitted)

    def predict_rises(self, masks: Masks) -> FloatArray:
        """Return predicted increases [n] of the loss; zeros if not fitted."""
        if self.loss_predictor is None or not len(masks):
            return np.zeros(len(masks))
        return self.loss_predictor.predict(masks) - self.dense_loss


@dataclass(slots=True, eq=False)
class UntrainedLosses:
    """Untrained losses by mask; evaluates each mask once."""

    evaluate_untrained: EvaluateUntrained
    losses: dict[bytes, float] = field(default_factory=dict)

    def losses_of(self, masks: Masks) -> FloatArray:
        """Return losses [n] of masks [n, A]; infinite where the loss is not finite."""
        new = {mask.tobytes(): mask for mask in masks if mask.tobytes() not in self.losses}
        if new:
            found = self.evaluate_untrained(np.stack(list(new.values())))
            self.losses |= dict(zip(new, np.where(np.isfinite(found), found, np.inf), strict=True))
        return np.array([self.losses[mask.tobytes()] for mask in masks])


@dataclass(slots=True, eq=False)
class TargetCandidates:
    """Policies that reach one target, by mask, without duplicates."""

    target: Target
    policies: dict[bytes, PolicyWithParams] = field(default_factory=dict)

    def add(self, policies: Sequence[PolicyWithParams], predictor: PolicyPredictor) -> None:
        """Add the policies that reach the target and whose masks are new."""
        if policies:
            masks, reachable = predictor.decode_masks(
                [policy for policy, _ in policies], self.target
            )
            for policy, mask, reaches in zip(policies, masks, reachable, strict=True):
                if reaches:
                    self.policies.setdefault(mask.tobytes(), policy)

    def most_promising(self, predictor: PolicyPredictor, evaluated: UntrainedLosses) -> Masks:
        """Return the unevaluated masks with the least predicted loss."""
        keys = (key for key in self.policies if key not in evaluated.losses)
        masks = predictor.masks_from_keys(keys)
        order = np.argsort(predictor.predict_rises(masks), kind="stable")
        return masks[order[:EVALUATED_PER_GENERATION]]

    def add_mutations(
        self,
        policy_space: PolicySpace,
        evaluated: UntrainedLosses,
        predictor: PolicyPredictor,
        rng: np.random.Generator,
    ) -> None:
        """Add mutations of the policies with the least untrained loss."""
        keys = [key for key in self.policies if key in evaluated.losses]
        parents = sorted(keys, key=lambda key: evaluated.losses[key])[:PARENTS_PER_TARGET]
        mutations = [
            MutatingSuggester(self.policies[key][1], rng)
            for key in parents
            for _ in range(MUTATIONS_PER_PARENT)
        ]
        policies = [(policy_space.sample(mutation), mutation.params) for mutation in mutations]
        self.add([one for one in policies if is_one_shot(one[0])], predictor)


def screen_policies(
    planned_trials: Sequence[PlannedTrial],
    policy_space: PolicySpace,
    unfitted: PolicyPredictor,
    evaluate_untrained: EvaluateUntrained | None,
    *,
    rng: np.random.Generator,
    initial: Sequence[tuple[Policy, Target]] = (),
    is_late: Callable[[], bool] = never_late,
) -> tuple[dict[int, Proposal], PolicyPredictor]:
    """Choose a good policy for each planned trial, such that their masks differ.

    Args:
        planned_trials: The planned trials to screen for.
        policy_space: The policies to choose from.
        unfitted: A predictor that decodes masks but predicts no loss yet.
        evaluate_untrained: Measures untrained losses; None turns screening off.
        rng: Source of the random candidates and mutations.
        initial: Policies of initial trials; screening never proposes a network that one of them
            already produces.
        is_late: Whether to stop after the current generation.

    Returns:
        The proposals by index in the plan, and the fitted predictor.
    """
    if not planned_trials or evaluate_untrained is None:
        return {}, unfitted
    targets = [planned.target for planned in planned_trials]
    candidates = draw_candidates(targets, policy_space, unfitted, rng)
    if not candidates:
        return {}, unfitted
    evaluated = UntrainedLosses(evaluate_untrained)
    dense = np.ones((1, unfitted.space.channel_map.atoms), dtype=bool)
    count = -(-INITIAL_EVALUATIONS // len(candidates))  # at least one
    first = [unfitted.masks_from_keys(islice(c.policies, count)) for c in candidates.values()]
    evaluated.losses_of(np.concatenate([dense, *first]))
    dense_loss = float(evaluated.losses_of(dense)[0])
    predictor = replace(unfitted, dense_loss=dense_loss).fit(evaluated)
    for generation in range(1 + GENERATIONS):
        if generation and is_late():
            break
        if generation:
            for of_target in candidates.values():
                of_target.add_mutations(policy_space, evaluated, predictor, rng)
        promising = [c.most_promising(predictor, evaluated) for c in candidates.values()]
        evaluated.losses_of(np.concatenate(promising))
        predictor = predictor.fit(evaluated)
    used = mask_keys(initial, unfitted)
    chosen = choose_diverse(planned_trials, candidates, evaluated, predictor, used, policy_space)
    return chosen, predictor


def draw_candidates(
    targets: Sequence[Target],
    policy_space: PolicySpace,
    predictor: PolicyPredictor,
    rng: np.random.Generator,
) -> dict[Target, TargetCandidates]:
    """Draw presets and random policies for each target that at least one of them reaches."""
    presets = [
        (policy, params)
        for policy in policy_space.presets.values()
        if is_one_shot(policy) and (params := policy_space.params_of(policy)) is not None
    ]
    candidates = {target: TargetCandidates(target) for target in targets}
    count = max(MIN_CANDIDATES_PER_TARGET, CANDIDATES_IN_ALL // len(candidates))
    for of_target in candidates.values():
        of_target.add([*presets, *draw_one_shot_policies(policy_space, count, rng)], predictor)
    return {target: of_target for target, of_target in candidates.items() if of_target.policies}


def mask_keys(initial: Sequence[tuple[Policy, Target]], predictor: PolicyPredictor) -> set[bytes]:
    """Return the masks, as bytes, of the one-shot policies among these."""
    one_shot = [(policy, target) for policy, target in initial if is_one_shot(policy)]
    return {predictor.decode_masks([p], target)[0][0].tobytes() for p, target in one_shot}


def choose_diverse(
    planned_trials: Sequence[PlannedTrial],
    candidates: Mapping[Target, TargetCandidates],
    evaluated: UntrainedLosses,
    predictor: PolicyPredictor,
    used: set[bytes],
    policy_space: PolicySpace,
) -> dict[int, Proposal]:
    """Choose, for each planned trial, an evaluated candidate that ties with the best."""
    chosen: list[NDArray[np.bool_]] = []
    proposals = {}
    for planned in (planned for planned in planned_trials if planned.target in candidates):
        policies = candidates[planned.target].policies
        keys = [key for key in policies if key in evaluated.losses and key not in used]
        masks = predictor.masks_from_keys(keys)
        losses = evaluated.losses_of(masks)
        if not np.isfinite(losses).any():
            continue  # no candidate is left, or none has a finite loss
        ties = np.flatnonzero(losses <= losses.min() + LOSS_TIE_TOLERANCE)
        best = int(ties[most_different_mask(masks[ties], losses[ties], chosen)])
        chosen.append(masks[best])
        used.add(keys[best])
        rise = float(losses[best]) - predictor.dense_loss
        policy, params = policies[keys[best]]
        tuned = with_default_recipe(policy, policy_space)
        known_params = params if tuned == policy else None
        proposals[planned.index] = Proposal(tuned, "screened", rise, known_params)
    return proposals


def most_different_mask(
    masks: Masks, losses: FloatArray, already_chosen: Sequence[NDArray[np.bool_]]
) -> int:
    """Return the index of the mask farthest from those chosen; of the best one if none are."""
    if not already_chosen:
        return int(np.argmin(losses))
    return int(np.argmax((masks[:, None, :] != np.stack(already_chosen)).sum(axis=2).min(axis=1)))


def with_default_recipe(policy: Policy, policy_space: PolicySpace) -> Policy:
    """Return a one-shot policy with the default training recipe, if the space contains it.

    Untrained losses say nothing about recipes. Other policies are returned unchanged.
    """
    if not is_one_shot(policy):
        return policy
    default = Policy(policy.score)
    tuned = replace(
        policy, refit=True, learning_rate=default.learning_rate, distill=default.distill
    )
    return policy if policy_space.params_of(tuned) is None else tuned


def is_one_shot(policy: Policy) -> bool:
    """Whether the policy prunes once, so that its mask is known before the trial."""
    return policy.schedule == "one-shot"


def draw_one_shot_policies(
    policy_space: PolicySpace, count: int, rng: np.random.Generator
) -> list[PolicyWithParams]:
    """Draw up to `count` random one-shot policies, without uniform ones, which are a control."""
    if "one-shot" not in policy_space.schedules:
        return []
    draws = (RandomSuggester(rng) for _ in range(MAX_DRAWS_PER_POLICY * count))
    policies = ((policy_space.sample(draw), draw.params) for draw in draws)
    usable = (one for one in policies if is_one_shot(one[0]) and one[0].allocation != "uniform")
    return list(islice(usable, count))
