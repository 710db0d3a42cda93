"""The policy space: a conditional, define-by-run search space.

`suggest_policy` asks a trial for each parameter by name. The trial can be an Optuna trial, a
`RandomSuggester`, a `MutatingSuggester`, or a `FixedSuggester`, which returns a given policy's own
values: so the parameters of the policy are found, or that the space does not contain it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...analysis.mask_ensembles import ENSEMBLE_PRESETS as ENSEMBLES
from ...analysis.mask_ensembles import is_ensemble_name
from ...analysis.measure import check_score_exists, needs_many_passes
from ...analysis.scores.registry import Network, all_scores, score_function
from ...spaces.cost.target import Target
from ...spaces.errors import UserError
from ...spaces.policy.policy import (
    ALLOCATIONS,
    COMBINATIONS,
    COST_REFERENCES,
    CURVE_RULES,
    NORMALISATIONS,
    PROBE_MODES,
    SCHEDULE_NAMES,
    Policy,
    check_choice,
    presets_for,
)
from .suggesters import Asked, FixedSuggester, OutsideSpaceError, RandomSuggester

# A control, and scores that are worse with every bias removal (docs/experiments/).
SCORES_NOT_SAMPLED = ("random", "bn-scale", "weight-gradient")
# Range of a loss-variation threshold. The paper uses 0.007 to 0.019; the targets of small networks
# need up to 0.3 (docs/experiments/).
LOSS_THRESHOLD_RANGE = (0.001, 1.0)
NO_TARGET = Target()
OWN_SPACE_DRAWS = 256  # policies drawn from a user's space to find what to measure
GLOBAL_THRESHOLD = "global-threshold"
# Scores whose order loss curves follow, with the combination of coupled layers. A user who names
# scores and loss budgets replaces them. Each order costs dozens of evaluations.
CURVE_ORDER_SCORES = {"taylor": "sum", "weight-gradient-rank": "later"}


@dataclass(frozen=True, slots=True)
class PolicySpace:
    """The policies that a search can sample."""

    scores: tuple[str, ...]
    allocations: tuple[str, ...] = ALLOCATIONS
    schedules: tuple[str, ...] = SCHEDULE_NAMES
    stages: int = 1  # of the network
    own_function: Callable[[Asked], Policy] | None = (
        None  # a user's function that replaces `suggest_policy`
    )
    curve_orders: tuple[str, ...] = ()  # scores whose order loss curves follow
    target: Target = NO_TARGET  # determines the presets

    def sample(self, trial: Asked) -> Policy:
        """Sample a policy with the suggestions of the trial."""
        if self.own_function:
            return call_own_space(self.own_function, trial)
        return suggest_policy(trial, self)

    def params_of(self, policy: Policy) -> dict[str, Any] | None:
        """Return the Optuna parameters of a policy; None if the space does not contain it."""
        trial = FixedSuggester(policy)
        try:
            sampled = self.sample(trial)
        except OutsideSpaceError:
            return None
        return trial.params if sampled == policy else None

    @property
    def presets(self) -> dict[str, Policy]:
        """The presets that this space contains."""
        presets = presets_for(self.target).items()
        return {name: policy for name, policy in presets if self.params_of(policy) is not None}

    @property
    def policies_to_measure(self) -> list[Policy]:
        """Policies that together need every measurement that a policy of the space can need."""
        needed = [Policy(name) for name in self.scores]
        if "loss-budget" in self.allocations and "one-shot" in self.schedules:
            needed += [
                Policy(
                    score,
                    combine=combination_for_order(score),
                    allocation="loss-budget",
                    probe=probe,
                )
                for score in self.curve_orders
                for probe in PROBE_MODES
            ]
        if self.own_function:
            rng = np.random.default_rng(0)
            drawn = [self.sample(RandomSuggester(rng)) for _ in range(OWN_SPACE_DRAWS)]
            needed += {(p.score, p.combine, p.allocation, p.probe): p for p in drawn}.values()
        return needed


def call_own_space(own: Callable[[Asked], Policy], trial: Asked) -> Policy:
    """Call a user's policy space; raise UserError if it fails."""
    name = getattr(own, "__name__", "policy_space")
    try:
        policy = own(trial)
    except (OutsideSpaceError, UserError):
        raise
    except Exception as error:
        raise UserError(
            f"the policy space {name} must return a policy for any suggestions, got "
            f"{type(error).__name__}: {error}; correct it"
        ) from error
    if not isinstance(policy, Policy):
        raise UserError(
            f"the policy space {name} must return a paretoprune.Policy, got "
            f"{type(policy).__name__}; return Policy(score, ...)"
        )
    return policy


def build_policy_space(
    scores: Sequence[str],
    allocations: Sequence[str],
    schedules: Sequence[str],
    stages: int,
    target: Target = NO_TARGET,
) -> PolicySpace:
    """Build the policy space from the user's choices.

    Args:
        scores: Names of scores; empty means all except SCORES_NOT_SAMPLED.
        allocations: Names of allocations; empty means all.
        schedules: Names of schedules; empty means all.
        stages: Number of stages of the network.
        target: Determines the presets.

    Returns:
        The policy space.

    Raises:
        UserError: A name is unknown, or no schedule fits the allocations.
    """
    for name in scores:
        check_score_exists(name)
    for name in allocations:
        check_choice("--allocations", name, ALLOCATIONS)
    for name in schedules:
        check_choice("--schedules", name, SCHEDULE_NAMES)
    default = tuple(name for name in (*all_scores(), *ENSEMBLES) if name not in SCORES_NOT_SAMPLED)
    chosen = tuple(scores) or default
    allowed = tuple(allocations) or ALLOCATIONS
    possible = tuple(
        name for name in tuple(schedules) or SCHEDULE_NAMES if is_schedule_possible(name, allowed)
    )
    if not possible:
        raise UserError(
            f"--schedules {', '.join(schedules)} needs {GLOBAL_THRESHOLD} among --allocations, "
            f"got {', '.join(allocations)}; add it, or add one-shot"
        )
    named = tuple(scores) if "loss-budget" in allocations else ()
    return PolicySpace(
        chosen,
        allowed,
        possible,
        stages,
        _OWN_SPACES[-1] if _OWN_SPACES else None,
        named or tuple(order for order in CURVE_ORDER_SCORES if order in chosen),
        target,
    )


def is_schedule_possible(schedule: str, allocations: Sequence[str]) -> bool:
    """Whether the allocations allow the schedule: all but one-shot need a global threshold."""
    return schedule == "one-shot" or GLOBAL_THRESHOLD in allocations


def combination_for_order(order: str) -> str:
    """Return how coupled layers are combined when this score orders loss curves."""
    return CURVE_ORDER_SCORES.get(order, "sum")


_OWN_SPACES: list[Callable[[Asked], Policy]] = []


def policy_space(
    function: Callable[[Asked], Policy],
) -> Callable[[Asked], Policy]:
    """Register a function as the policy space of later searches.

    Args:
        function: Takes an object with the `suggest_*` methods of an Optuna trial and returns a
            Policy. It must return a policy for any suggestions.

    Returns:
        The function itself, so that this serves as a decorator.

    Example:
        @pp.policy_space
        def two_scores(trial: pp.Asked) -> pp.Policy:
            return pp.Policy(trial.suggest_categorical("score", ("taylor", "l2")))
    """
    _OWN_SPACES.append(function)
    return function


def registered_spaces() -> tuple[Callable[[Asked], Policy], ...]:
    """Return the users' policy spaces; the last one is used."""
    return tuple(_OWN_SPACES)


def unregister_space(function: Callable[[Asked], Policy]) -> None:
    """Remove a user's policy space."""
    _OWN_SPACES.remove(function)


def suggest_policy(trial: Asked, space: PolicySpace) -> Policy:
    """Sample a policy parameter by parameter."""
    schedule = trial.suggest_categorical("schedule", space.schedules)
    recipe: dict[str, Any] = {
        "learning_rate": trial.suggest_float("learning_rate", 0.005, 0.05, log=True),
        "distill": trial.suggest_float("distill", 0.0, 0.9),
        "floor": trial.suggest_int("floor", 1, 3),
    }
    if schedule != "holistic":
        recipe["refit"] = trial.suggest_categorical("refit", (False, True))
    if schedule == "one-shot":
        allocations = [a for a in space.allocations if a != "loss-budget" or space.curve_orders]
        allocation = trial.suggest_categorical("allocation", allocations)
        return Policy(
            **ALLOCATION_SUGGESTERS[allocation](trial, space), allocation=allocation, **recipe
        )
    allocated = suggest_global_threshold(trial, space, name=f"{schedule} score")
    return Policy(**allocated, schedule=schedule, **SCHEDULE_SUGGESTERS[schedule](trial), **recipe)


def suggest_global_threshold(
    trial: Asked, space: PolicySpace, *, name: str = "score"
) -> dict[str, Any]:
    """Suggest a global threshold: score, combination, bias removal and cost term.

    Schedules other than one-shot repeat the score, so they avoid scores of many passes.
    """
    scores = [
        s for s in space.scores if name == "score" or not needs_many_passes(s)
    ] or space.scores
    values: dict[str, Any] = {
        "score": trial.suggest_categorical(name, scores),
        "combine": trial.suggest_categorical("combine", COMBINATIONS),
        "normalisation": trial.suggest_categorical("normalisation", NORMALISATIONS),
    }
    if is_ensemble_name(values["score"]):
        values["caution"] = trial.suggest_float("caution", 0.0, 1.0)
    if trial.suggest_categorical("priced", (False, True)):
        values["price_power"] = trial.suggest_float("price_power", 0.0, 1.0)
        values["price_blend"] = trial.suggest_float("price_blend", 0.0, 1.0)
        values["price_at"] = trial.suggest_categorical("price_at", COST_REFERENCES)
    if space.stages > 1 and trial.suggest_categorical("staged", (False, True)):
        values["stages"] = suggest_stage_pairs(trial, space.stages, values["normalisation"])
    return values


def suggest_stage_pairs(trial: Asked, stages: int, normalisation: str) -> tuple[float, ...]:
    """Suggest a and b of a * s + b for each stage; b only if normalised scores give it a scale."""
    pairs = []
    for number in range(stages):
        factor = trial.suggest_float(f"stage {number} factor", 0.25, 4.0, log=True)
        shift = 0.0
        if normalisation not in ("none", "fan-in"):
            shift = trial.suggest_float(f"stage {number} shift", -0.5, 0.5)
        pairs += [factor, shift]
    return tuple(pairs)


def suggest_loss_budget(trial: Asked, space: PolicySpace) -> dict[str, Any]:
    """Suggest loss curves: their order and probe, one threshold or the least sum, and stages.

    A free threshold prunes beyond the target if the loss allows it.
    """
    order = trial.suggest_categorical("order", space.curve_orders)
    values: dict[str, Any] = {
        "score": order,
        "combine": combination_for_order(order),
        "probe": trial.suggest_categorical("probe", PROBE_MODES),
        "curves": trial.suggest_categorical("curves", CURVE_RULES),
    }
    if values["curves"] == "least-sum":
        values["price_blend"] = trial.suggest_float("price_blend", 0.0, 1.0)
    elif trial.suggest_categorical("free", (False, True)):
        values["threshold"] = trial.suggest_float("threshold", *LOSS_THRESHOLD_RANGE, log=True)
    if space.stages > 1 and trial.suggest_categorical("staged", (False, True)):
        values["stages"] = suggest_stage_pairs(trial, space.stages, "none")
    return values


def suggest_uniform(trial: Asked, space: PolicySpace) -> dict[str, Any]:
    """Suggest a uniform allocation: the same fraction of every group."""
    return {
        "score": trial.suggest_categorical("uniform score", space.scores),
        "combine": trial.suggest_categorical("combine", COMBINATIONS),
    }


ALLOCATION_SUGGESTERS: dict[str, Callable[[Asked, PolicySpace], dict[str, Any]]] = {
    GLOBAL_THRESHOLD: suggest_global_threshold,
    "loss-budget": suggest_loss_budget,
    "uniform": suggest_uniform,
}
SCHEDULE_SUGGESTERS: dict[str, Callable[[Asked], dict[str, Any]]] = {
    "gradual": lambda trial: {
        "steps": trial.suggest_int("steps", 2, 10),
        "step_share": trial.suggest_float("step_share", 0.0, 0.6),
    },
    "holistic": lambda trial: {
        "gate_share": trial.suggest_float("gate_share", 0.2, 0.8),
        "gate_learning_rate": trial.suggest_float("gate_learning_rate", 0.3, 3.0, log=True),
    },
}


def own_scores(scores: Sequence[str]) -> list[str]:
    """Return those of the names that a plugin or a caller registered."""
    package = Network.__module__.rpartition(".")[0]
    known = all_scores()
    return [
        name
        for name in scores
        if name in known and not score_function(known[name]).__module__.startswith(package)
    ]
