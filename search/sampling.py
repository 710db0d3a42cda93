"""The policy space, define-by-run: what Optuna samples for one trial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna

from ..analysis.scores.registry import Network, all_scores, function_of
from ..spaces.policy import COMBINATIONS, NORMALISATIONS, PRESETS, PRICES_AT, Policy

STARTUP_TRIALS = 8  # sampled at random before the sampler trusts what it has seen
# A control, and scores that no bias removal brought near the others (docs/results.md).
NEVER_SAMPLED = ("random", "bn-scale", "weight-gradient", "weight-gradient-rank")
SAMPLED = (
    "score",
    "combine",
    "normalisation",
    "price_power",
    "price_blend",
    "price_at",
    "floor",
    "learning_rate",
    "distill",
)


def suggest_policy(trial: optuna.Trial, scores: Sequence[str]) -> Policy:
    """Sample one policy. `scores` are the names that evidence was measured for."""
    names = [name for name in scores if name not in NEVER_SAMPLED]
    return Policy(
        score=trial.suggest_categorical("score", names),
        combine=trial.suggest_categorical("combine", COMBINATIONS),
        normalisation=trial.suggest_categorical("normalisation", NORMALISATIONS),
        price_power=trial.suggest_float("price_power", 0.0, 1.0),
        price_blend=trial.suggest_float("price_blend", 0.0, 1.0),
        price_at=trial.suggest_categorical("price_at", PRICES_AT),
        floor=trial.suggest_int("floor", 1, 2),
        learning_rate=trial.suggest_float("learning_rate", 0.005, 0.1, log=True),
        distill=trial.suggest_float("distill", 0.0, 0.9),
    )


def params_of(policy: Policy) -> dict[str, Any]:
    """The sampled parameters that give this policy: what is enqueued to run it."""
    return {name: getattr(policy, name) for name in SAMPLED}


def opening_policies(scores: Sequence[str]) -> list[Policy]:
    """What every search tries first: presets that its space contains, the user's own scores."""
    presets = [p for p in PRESETS.values() if p == Policy(**params_of(p))]
    own = [Policy(name, floor=2) for name in scores if is_own(name)]
    return [policy for policy in (*presets, *own) if policy.score in scores]


def is_own(name: str) -> bool:
    """Whether a score is the user's, from a plugin or a call."""
    package = Network.__module__.rpartition(".")[0]
    return not function_of(all_scores()[name]).__module__.startswith(package)


def make_sampler(seed: int) -> optuna.samplers.BaseSampler:
    """A fresh sampler: its choices follow from the seed and the ledger alone."""
    return optuna.samplers.TPESampler(
        seed=seed,
        multivariate=True,
        constant_liar=True,
        n_startup_trials=STARTUP_TRIALS,
    )
