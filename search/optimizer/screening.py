"""Screening: thousands of policies are decoded, priced and foretold before the first trial.

Every target of the slots that are to be screened gets candidates. Some of all are rehearsed: cut
and looked at, untrained. What comes of it foretells the others; each target's few with the least
foretold loss are rehearsed too, then, generation by generation, the most promising variations of
those that did best. Of those that are level with a target's best, the one farthest (in atoms) from
what was taken before is tried, so that the trials are not all of the same network.
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

CANDIDATES_IN_ALL = 2048  # decoded in all
MIN_CANDIDATES_PER_TARGET = 64  # for one target
FIRST = 96  # masks that are rehearsed before any is foretold
EVALUATED_PER_GENERATION = (
    4  # of a target's candidates are rehearsed at a time because of what is foretold of them
)
GENERATIONS = 4  # of variations
PARENTS_PER_TARGET, MUTATIONS_PER_PARENT = 3, 24  # of a target, and of each of them
MAX_DRAWS_PER_POLICY = 6  # at most, for each policy whose mask is known beforehand
LOSS_TIE_TOLERANCE = (
    0.04  # rehearsed losses closer than this are level: about their standard error
)
GROUP_WEIGHT_SCORE = "taylor"  # the score by which the shares that groups lose are weighed

Masks = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
SuggestedParams = Mapping[str, Any]
PolicyWithParams = tuple[Policy, SuggestedParams]  # a policy and the answers that make it
EvaluateUntrained = Callable[[Masks], FloatArray]


def never_late() -> bool:
    """There is time enough."""
    return False


@dataclass(frozen=True, slots=True)
class Proposal:
    """A policy for one slot, where it comes from, and what is foretold of it."""

    policy: Policy
    origin: str  # transfer:TRIAL, preset:NAME, own:SCORE, screened, refined:TRIAL or sampled
    predicted: float | None = None  # rise of the loss
    params: SuggestedParams | None = (
        None  # the answers that make the policy; None: its space tells
    )


@dataclass(frozen=True, slots=True, eq=False)
class PolicyPredictor:
    """What can be told of policies before they are carried out."""

    space: PruningSpace
    measurements: Measurements
    loss_predictor: UntrainedLossPredictor | None = (
        None  # None: nothing is foretold, masks are only told apart
    )
    dense_loss: float = 0.0

    def predict(self, policies: Sequence[Policy], target: Target) -> tuple[Masks, FloatArray]:
        """Masks [n, A] of the policies, and the rises [n] of the loss that are foretold.

        Policies that cannot reach the target have a rise of infinity.
        """
        masks, reachable = self.decode_masks(policies, target)
        return masks, np.where(reachable, self.predict_rises(masks), np.inf)

    def decode_masks(
        self, policies: Sequence[Policy], target: Target
    ) -> tuple[Masks, NDArray[np.bool_]]:
        """Masks [n, A] of the policies, and which of them [n] reach the target."""
        return decode_policies(policies, [target] * len(policies), self.measurements, self.space)

    def masks_from_keys(self, keys: Iterable[bytes]) -> Masks:
        """Masks [n, A] from their bytes."""
        atoms = self.space.channel_map.atoms
        return np.frombuffer(b"".join(keys), dtype=bool).reshape(-1, atoms)

    def fit(self, evaluated: UntrainedLosses) -> PolicyPredictor:
        """The same, fitted to all rehearsals so far."""
        masks, losses = (
            self.masks_from_keys(evaluated.losses),
            np.array(list(evaluated.losses.values())),
        )
        worth = np.ones(masks.shape[1])
        if GROUP_WEIGHT_SCORE in self.measurements.scores:
            worth = combine_layers(
                self.measurements.scores[GROUP_WEIGHT_SCORE], self.space.channel_map, "sum"
            )
        return replace(
            self,
            loss_predictor=fit_untrained_loss_predictor(
                masks, losses, worth, self.space.channel_map
            ),
        )

    def predict_rises(self, masks: Masks) -> FloatArray:
        """The foretold rises of the loss; 0 where nothing is foretold."""
        if self.loss_predictor is None or not len(masks):
            return np.zeros(len(masks))
        return self.loss_predictor.predict(masks) - self.dense_loss


@dataclass(slots=True, eq=False)
class UntrainedLosses:
    """What rehearsals have shown so far; no mask is rehearsed twice."""

    evaluate_untrained: EvaluateUntrained
    losses: dict[bytes, float] = field(default_factory=dict)

    def losses_of(self, masks: Masks) -> FloatArray:
        """Losses of masks [n, A]: [n]; infinite where there is no number."""
        new = {mask.tobytes(): mask for mask in masks if mask.tobytes() not in self.losses}
        if new:
            found = self.evaluate_untrained(np.stack(list(new.values())))
            self.losses |= dict(zip(new, np.where(np.isfinite(found), found, np.inf), strict=True))
        return np.array([self.losses[mask.tobytes()] for mask in masks])


@dataclass(slots=True, eq=False)
class TargetCandidates:
    """Policies that reach one target, by their masks: no two alike."""

    target: Target
    policies: dict[bytes, PolicyWithParams] = field(default_factory=dict)

    def add(self, policies: Sequence[PolicyWithParams], predictor: PolicyPredictor) -> None:
        """Those whose masks are new."""
        if policies:
            masks, reachable = predictor.decode_masks(
                [policy for policy, _ in policies], self.target
            )
            for one, mask, reaches in zip(policies, masks, reachable, strict=True):
                if reaches:
                    self.policies.setdefault(mask.tobytes(), one)

    def most_promising(self, predictor: PolicyPredictor, evaluated: UntrainedLosses) -> Masks:
        """The few of which most is foretold, of those that were not rehearsed."""
        masks = predictor.masks_from_keys(
            key for key in self.policies if key not in evaluated.losses
        )
        return masks[
            np.argsort(predictor.predict_rises(masks), kind="stable")[:EVALUATED_PER_GENERATION]
        ]

    def add_mutations(
        self,
        policy_space: PolicySpace,
        evaluated: UntrainedLosses,
        predictor: PolicyPredictor,
        rng: np.random.Generator,
    ) -> None:
        """Add variations of those whose rehearsals went best."""
        rehearsed = [key for key in self.policies if key in evaluated.losses]
        parents = sorted(rehearsed, key=lambda key: evaluated.losses[key])[:PARENTS_PER_TARGET]
        varied = [
            MutatingSuggester(self.policies[key][1], rng)
            for key in parents
            for _ in range(MUTATIONS_PER_PARENT)
        ]
        answered = [(policy_space.sample(one), one.params) for one in varied]
        self.add([one for one in answered if is_one_shot(one[0])], predictor)


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
    """The best diverse policy for each of the slots, by index, and a screen that foretells.

    None makes a network that one of the `opening` makes: those are tried in any case. There are
    fewer generations of variations where it gets `late`.
    """
    if not planned_trials or evaluate_untrained is None:
        return {}, unfitted
    drawn = draw_candidates([slot.target for slot in planned_trials], policy_space, unfitted, rng)
    if not drawn:
        return {}, unfitted
    shown = UntrainedLosses(evaluate_untrained)
    whole = np.ones((1, unfitted.space.channel_map.atoms), dtype=bool)
    each = -(-FIRST // len(drawn))  # at least one
    first = [unfitted.masks_from_keys(islice(one.policies, each)) for one in drawn.values()]
    shown.losses_of(np.concatenate([whole, *first]))
    screen = replace(unfitted, dense_loss=float(shown.losses_of(whole)[0])).fit(shown)
    for generation in range(1 + GENERATIONS):
        if generation and is_late():
            break
        if generation:
            for one in drawn.values():
                one.add_mutations(policy_space, shown, screen, rng)
        shown.losses_of(
            np.concatenate([one.most_promising(screen, shown) for one in drawn.values()])
        )
        screen = screen.fit(shown)
    return choose_diverse(
        planned_trials, drawn, shown, screen, mask_keys(initial, unfitted), policy_space
    ), screen


def draw_candidates(
    targets: Sequence[Target],
    policy_space: PolicySpace,
    predictor: PolicyPredictor,
    rng: np.random.Generator,
) -> dict[Target, TargetCandidates]:
    """Presets and random policies for each of the targets that any of them reaches."""
    presets = [
        (policy, params)
        for policy in policy_space.presets.values()
        if is_one_shot(policy) and (params := policy_space.params_of(policy)) is not None
    ]
    drawn = {target: TargetCandidates(target) for target in targets}
    count = max(MIN_CANDIDATES_PER_TARGET, CANDIDATES_IN_ALL // len(drawn))
    for one in drawn.values():
        one.add([*presets, *draw_one_shot_policies(policy_space, count, rng)], predictor)
    return {target: one for target, one in drawn.items() if one.policies}


def mask_keys(initial: Sequence[tuple[Policy, Target]], predictor: PolicyPredictor) -> set[bytes]:
    """Masks of the policies whose mask is known before they are carried out."""
    known = [(policy, target) for policy, target in initial if is_one_shot(policy)]
    return {predictor.decode_masks([policy], target)[0][0].tobytes() for policy, target in known}


def choose_diverse(
    planned_trials: Sequence[PlannedTrial],
    candidates: Mapping[Target, TargetCandidates],
    evaluated: UntrainedLosses,
    screen: PolicyPredictor,
    used: set[bytes],
    policy_space: PolicySpace,
) -> dict[int, Proposal]:
    """For each slot a rehearsed candidate that is level with the best, unlike those before."""
    taken: list[NDArray[np.bool_]] = []
    found = {}
    for slot in (slot for slot in planned_trials if slot.target in candidates):
        policies = candidates[slot.target].policies
        keys = [key for key in policies if key in evaluated.losses and key not in used]
        masks = screen.masks_from_keys(keys)
        losses = evaluated.losses_of(masks)
        if not np.isfinite(losses).any():
            continue  # none is left, or none has a number
        level = np.flatnonzero(losses <= losses.min() + LOSS_TIE_TOLERANCE)
        best = int(level[most_different_mask(masks[level], losses[level], taken)])
        taken.append(masks[best])
        used.add(keys[best])
        rise = float(losses[best]) - screen.dense_loss
        policy, answers = policies[keys[best]]
        tuned = with_default_recipe(policy, policy_space)
        found[slot.index] = Proposal(tuned, "screened", rise, answers if tuned == policy else None)
    return found


def most_different_mask(
    masks: Masks, losses: FloatArray, already_chosen: Sequence[NDArray[np.bool_]]
) -> int:
    """The mask that differs most from those that were taken; if none were, the best."""
    if not already_chosen:
        return int(np.argmin(losses))
    return int(np.argmax((masks[:, None, :] != np.stack(already_chosen)).sum(axis=2).min(axis=1)))


def with_default_recipe(policy: Policy, policy_space: PolicySpace) -> Policy:
    """One that is cut at once with the usual recipe after it, if the space has that: nothing
    foretells which is best.
    """
    if not is_one_shot(policy):
        return policy
    usual = Policy(policy.score)
    tuned = replace(policy, refit=True, learning_rate=usual.learning_rate, distill=usual.distill)
    return policy if policy_space.params_of(tuned) is None else tuned


def is_one_shot(policy: Policy) -> bool:
    """Whether its mask is known before it is carried out."""
    return policy.schedule == "one-shot"


def draw_one_shot_policies(
    policy_space: PolicySpace, count: int, rng: np.random.Generator
) -> list[PolicyWithParams]:
    """Random policies whose mask is known, `count` at most; uniform cuts are a control."""
    if "one-shot" not in policy_space.schedules:
        return []
    drawn = (RandomSuggester(rng) for _ in range(MAX_DRAWS_PER_POLICY * count))
    answered = ((policy_space.sample(one), one.params) for one in drawn)
    known = (one for one in answered if is_one_shot(one[0]) and one[0].allocation != "uniform")
    return list(islice(known, count))
