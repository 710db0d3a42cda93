"""Optuna's samplers, by name: each is fresh for each trial, so that the ledger alone decides."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import optuna

STARTUP_TRIALS = 8  # finished ones, before a model of them is trusted
POPULATION = 16


def tpe(seed: int) -> optuna.samplers.BaseSampler:
    """Tree-structured Parzen estimators, jointly over parameters that occur together."""
    return optuna.samplers.TPESampler(
        seed=seed,
        multivariate=True,
        group=True,
        constant_liar=True,
        n_startup_trials=STARTUP_TRIALS,
    )


def nsga2(seed: int) -> optuna.samplers.BaseSampler:
    """A genetic algorithm by non-dominated sorting."""
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION)


def gp(seed: int) -> optuna.samplers.BaseSampler:
    """Gaussian processes; parameters that only some policies have are sampled at random."""
    return optuna.samplers.GPSampler(
        seed=seed, n_startup_trials=STARTUP_TRIALS, warn_independent_sampling=False
    )


def at_random(seed: int) -> optuna.samplers.BaseSampler:
    """No model: the baseline of the others."""
    return optuna.samplers.RandomSampler(seed=seed)


MAKE: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "tpe": tpe,
    "nsga2": nsga2,
    "gp": gp,
    "random": at_random,
}


def make_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """A fresh sampler: its choices follow from the seed and the ledger alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return MAKE[name](seed)
