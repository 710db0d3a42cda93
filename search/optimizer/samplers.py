"""Optuna's samplers by name.

Each trial gets a new sampler, so its proposal depends only on the seed and the stored trials.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import optuna

STARTUP_TRIALS = 8  # finished trials before the sampler uses its model
POPULATION_SIZE = 16


def make_tpe_sampler(seed: int) -> optuna.samplers.BaseSampler:
    """Make a multivariate tree-structured Parzen estimator."""
    return optuna.samplers.TPESampler(
        seed=seed,
        multivariate=True,
        group=True,
        constant_liar=True,
        n_startup_trials=STARTUP_TRIALS,
    )


def make_nsga2_sampler(seed: int) -> optuna.samplers.BaseSampler:
    """Make NSGA-II, a genetic algorithm with non-dominated sorting."""
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION_SIZE)


def make_gp_sampler(seed: int) -> optuna.samplers.BaseSampler:
    """Make a Gaussian-process sampler; conditional parameters are sampled at random."""
    return optuna.samplers.GPSampler(
        seed=seed, n_startup_trials=STARTUP_TRIALS, warn_independent_sampling=False
    )


def make_random_sampler(seed: int) -> optuna.samplers.BaseSampler:
    """Make a random sampler, the baseline of the others."""
    return optuna.samplers.RandomSampler(seed=seed)


SAMPLER_FACTORIES: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "tpe": make_tpe_sampler,
    "nsga2": make_nsga2_sampler,
    "gp": make_gp_sampler,
    "random": make_random_sampler,
}


def make_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """Make a new sampler by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return SAMPLER_FACTORIES[name](seed)
