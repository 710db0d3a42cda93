"""The policy space, define-by-run and conditional: what may be sampled for one trial.

One function asks for every choice by name; whoever answers decides what the result is: an Optuna
trial samples, `Drawn` draws at random, `Told` answers with a policy's own values, which gives the
parameters that lead to that policy, or tells that the space does not contain it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...analysis.mask_ensembles import PRESETS as ENSEMBLES
from ...analysis.mask_ensembles import is_ensemble
from ...analysis.measure import check_known, takes_many_runs
from ...analysis.scores.registry import Network, all_scores, function_of
from ...spaces.cost.target import Target
from ...spaces.errors import UserError
from ...spaces.policy.policy import (
    ALLOCATIONS,
    COMBINATIONS,
    CURVES,
    NORMALISATIONS,
    PRICES_AT,
    PROBES,
    SCHEDULES,
    Policy,
    check_choice,
    presets_for,
)
from .suggesters import Asked, Drawn, Outside, Told

# A control, and scores that no bias removal brought near the others (docs/results.md).
SELDOM = ("random", "bn-scale", "weight-gradient")
# A free threshold, in loss variation; the paper's are 0.007 to 0.019, those that the targets of
# small networks need go to 0.3 (docs/results.md).
THRESHOLDS = (0.001, 1.0)
UNASKED = Target()
OWN_DRAWS = 256  # of a user's own space, whose evidence is measured
THRESHOLD = "global-threshold"
# Loss curves are measured for these orders, unless the user names both scores and loss budgets:
# each order costs dozens of evaluations.
ORDERS = {"taylor": "sum", "weight-gradient-rank": "later"}


@dataclass(frozen=True, slots=True)
class PolicySpace:
    """What the user lets the search sample. `stages` is the number of stages of the network."""

    scores: tuple[str, ...]
    allocations: tuple[str, ...] = ALLOCATIONS
    schedules: tuple[str, ...] = SCHEDULES
    stages: int = 1
    own: Callable[[Asked], Policy] | None = None  # a plugin's function, in place of ours
    orders: tuple[str, ...] = ()  # the scores in whose order loss curves are measured
    target: Target = UNASKED  # what the presets are for

    def sample(self, asked: Asked) -> Policy:
        """The policy that the answers make."""
        return made_by(self.own, asked) if self.own else suggest_policy(asked, self)

    def params_of(self, policy: Policy) -> dict[str, Any] | None:
        """The answers that make this policy; None where the space does not contain it."""
        told = Told(policy)
        try:
            found = self.sample(told)
        except Outside:
            return None
        return told.answers if found == policy else None

    @property
    def presets(self) -> dict[str, Policy]:
        """The presets that this space contains."""
        known = presets_for(self.target).items()
        return {name: policy for name, policy in known if self.params_of(policy) is not None}

    @property
    def read(self) -> list[Policy]:
        """Policies that together read all the evidence that any policy of the space reads."""
        needed = [Policy(name) for name in self.scores]
        if "loss-budget" in self.allocations and "one-shot" in self.schedules:
            needed += [
                Policy(score, combine=combined(score), allocation="loss-budget", probe=probe)
                for score in self.orders
                for probe in PROBES
            ]
        if self.own:
            rng = np.random.default_rng(0)
            made = [self.sample(Drawn(rng)) for _ in range(OWN_DRAWS)]
            needed += {(p.score, p.combine, p.allocation, p.probe): p for p in made}.values()
        return needed


def made_by(own: Callable[[Asked], Policy], asked: Asked) -> Policy:
    """What a user's function makes of the answers; a fault of the function is one line."""
    name = getattr(own, "__name__", "policy_space")
    try:
        found = own(asked)
    except (Outside, UserError):
        raise
    except Exception as error:
        raise UserError(
            f"the policy space {name} must make a policy of any answers, got "
            f"{type(error).__name__}: {error}; mend it"
        ) from error
    if not isinstance(found, Policy):
        raise UserError(
            f"the policy space {name} must return a paretoprune.Policy, got "
            f"{type(found).__name__}; return Policy(score, ...)"
        )
    return found


def space_from(
    scores: Sequence[str],
    allocations: Sequence[str],
    schedules: Sequence[str],
    stages: int,
    target: Target = UNASKED,
) -> PolicySpace:
    """The space that the user's choices leave; an empty choice means all."""
    for name in scores:
        check_known(name)
    for name in allocations:
        check_choice("--allocations", name, ALLOCATIONS)
    for name in schedules:
        check_choice("--schedules", name, SCHEDULES)
    usual = tuple(name for name in (*all_scores(), *ENSEMBLES) if name not in SELDOM)
    chosen = tuple(scores) or usual
    allowed = tuple(allocations) or ALLOCATIONS
    possible = tuple(name for name in tuple(schedules) or SCHEDULES if fits(name, allowed))
    if not possible:
        raise UserError(
            f"--schedules {', '.join(schedules)} needs {THRESHOLD} among --allocations, got "
            f"{', '.join(allocations)}; add it, or add one-shot"
        )
    named = tuple(scores) if "loss-budget" in allocations else ()
    return PolicySpace(
        chosen,
        allowed,
        possible,
        stages,
        _OWN[-1] if _OWN else None,
        named or tuple(order for order in ORDERS if order in chosen),
        target,
    )


def fits(schedule: str, allocations: Sequence[str]) -> bool:
    """True if the schedule is possible: steps and gates go by one threshold over all groups."""
    return schedule == "one-shot" or THRESHOLD in allocations


def combined(order: str) -> str:
    """How the parts of coupled layers are combined where a score orders loss curves."""
    return ORDERS.get(order, "sum")


_OWN: list[Callable[[Asked], Policy]] = []


def policy_space(
    function: Callable[[Asked], Policy],
) -> Callable[[Asked], Policy]:
    """Let a function of yours say what is sampled: from an Optuna trial to a Policy."""
    _OWN.append(function)
    return function


def own_spaces() -> tuple[Callable[[Asked], Policy], ...]:
    """The functions that say what is sampled; the last one holds."""
    return tuple(_OWN)


def forget_space(function: Callable[[Asked], Policy]) -> None:
    """Let the function say nothing any more."""
    _OWN.remove(function)


def suggest_policy(asked: Asked, space: PolicySpace) -> Policy:
    """Ask for a policy, part by part."""
    schedule = asked.suggest_categorical("schedule", space.schedules)
    recipe: dict[str, Any] = {
        "learning_rate": asked.suggest_float("learning_rate", 0.005, 0.05, log=True),
        "distill": asked.suggest_float("distill", 0.0, 0.9),
        "floor": asked.suggest_int("floor", 1, 3),
    }
    if schedule != "holistic":
        recipe["refit"] = asked.suggest_categorical("refit", (False, True))
    if schedule == "one-shot":
        allocations = [a for a in space.allocations if a != "loss-budget" or space.orders]
        allocation = asked.suggest_categorical("allocation", allocations)
        return Policy(**MAKE[allocation](asked, space), allocation=allocation, **recipe)
    made = threshold(asked, space, name=f"{schedule} score")
    return Policy(**made, schedule=schedule, **TIMING[schedule](asked), **recipe)


def threshold(asked: Asked, space: PolicySpace, *, name: str = "score") -> dict[str, Any]:
    """One global threshold: score, combination, bias removal and price.

    Steps measure their score again each time, so they take none that takes many runs.
    """
    scores = [s for s in space.scores if name == "score" or not takes_many_runs(s)] or space.scores
    made: dict[str, Any] = {
        "score": asked.suggest_categorical(name, scores),
        "combine": asked.suggest_categorical("combine", COMBINATIONS),
        "normalisation": asked.suggest_categorical("normalisation", NORMALISATIONS),
    }
    if is_ensemble(made["score"]):
        made["caution"] = asked.suggest_float("caution", 0.0, 1.0)
    if asked.suggest_categorical("priced", (False, True)):
        made["price_power"] = asked.suggest_float("price_power", 0.0, 1.0)
        made["price_blend"] = asked.suggest_float("price_blend", 0.0, 1.0)
        made["price_at"] = asked.suggest_categorical("price_at", PRICES_AT)
    if space.stages > 1 and asked.suggest_categorical("staged", (False, True)):
        made["stages"] = stage_pairs(asked, space.stages, made["normalisation"])
    return made


def stage_pairs(asked: Asked, stages: int, normalisation: str) -> tuple[float, ...]:
    """a and b of a * s + b, stage by stage; b only where normalised scores give it a scale."""
    pairs = []
    for number in range(stages):
        factor = asked.suggest_float(f"stage {number} factor", 0.25, 4.0, log=True)
        shift = 0.0
        if normalisation not in ("none", "fan-in"):
            shift = asked.suggest_float(f"stage {number} shift", -0.5, 0.5)
        pairs += [factor, shift]
    return tuple(pairs)


def loss_budget(asked: Asked, space: PolicySpace) -> dict[str, Any]:
    """Loss curves: in which order, probed how, one threshold or the least sum, by stage.

    A free threshold cuts further than the target asks, where the loss allows it.
    """
    order = asked.suggest_categorical("order", space.orders)
    made: dict[str, Any] = {
        "score": order,
        "combine": combined(order),
        "probe": asked.suggest_categorical("probe", PROBES),
        "curves": asked.suggest_categorical("curves", CURVES),
    }
    if made["curves"] == "least-sum":
        made["price_blend"] = asked.suggest_float("price_blend", 0.0, 1.0)
    elif asked.suggest_categorical("free", (False, True)):
        made["threshold"] = asked.suggest_float("threshold", *THRESHOLDS, log=True)
    if space.stages > 1 and asked.suggest_categorical("staged", (False, True)):
        made["stages"] = stage_pairs(asked, space.stages, "none")
    return made


def uniform(asked: Asked, space: PolicySpace) -> dict[str, Any]:
    """The same share of every group: only the order within groups is left."""
    return {
        "score": asked.suggest_categorical("uniform score", space.scores),
        "combine": asked.suggest_categorical("combine", COMBINATIONS),
    }


MAKE: dict[str, Callable[[Asked, PolicySpace], dict[str, Any]]] = {
    THRESHOLD: threshold,
    "loss-budget": loss_budget,
    "uniform": uniform,
}
TIMING: dict[str, Callable[[Asked], dict[str, Any]]] = {
    "gradual": lambda asked: {
        "steps": asked.suggest_int("steps", 2, 10),
        "step_share": asked.suggest_float("step_share", 0.0, 0.6),
    },
    "holistic": lambda asked: {
        "gate_share": asked.suggest_float("gate_share", 0.2, 0.8),
        "gate_learning_rate": asked.suggest_float("gate_learning_rate", 0.3, 3.0, log=True),
    },
}


def own_scores(scores: Sequence[str]) -> list[str]:
    """Those of the names that are the user's, from a plugin or a call."""
    package = Network.__module__.rpartition(".")[0]
    known = all_scores()
    return [
        name
        for name in scores
        if name in known and not function_of(known[name]).__module__.startswith(package)
    ]
