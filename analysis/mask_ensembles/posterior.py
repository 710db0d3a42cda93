"""Priors of the coefficients, and scores from their posterior."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...spaces.policy.normalization import fractional_ranks
from .ridge import Prior

Values = NDArray[np.float64]
MIN_PRIOR_SPREAD = 0.1  # prior spread at a Taylor score of 0, relative to the mean score


def build_priors(taylor: Values | None, known: Sequence[Values], count: int) -> tuple[Prior, ...]:
    """Candidate priors of `count` coefficients; the atoms' coefficients come first.

    The prior mean is a linear combination of the Taylor score, a constant and the `known` scores.
    The prior spread is either equal for all atoms or follows the Taylor score, since unimportant
    atoms have small coefficients. The marginal likelihood chooses between the two.
    """
    predictors = list(known) if taylor is None else [taylor, np.ones_like(taylor), *known]
    columns = np.zeros((count, len(predictors)))
    for index, values in enumerate(predictors):
        columns[: len(values), index] = relative_to_mean(values)
    flat = Prior(columns, np.ones(count))
    if taylor is None:
        return (flat,)
    spread = np.ones(count)
    spread[: len(taylor)] = relative_to_mean(taylor) + MIN_PRIOR_SPREAD
    return flat, Prior(columns, np.mean(spread**2) / spread**2)


def expected_scores(mean: Values, error: Values, variant: str) -> tuple[Values, Values]:
    """Mean and standard deviation of b, |b| or b^2 for normal coefficients b."""
    if variant == "mean":
        return mean, error
    second = mean**2 + error**2
    if variant == "square":
        return second, np.sqrt(2 * error**4 + 4 * (mean * error) ** 2)
    ratio = mean / np.maximum(error, 1e-30)
    tail = np.array([math.erf(value) for value in (ratio / 2**0.5).ravel()]).reshape(mean.shape)
    size = error * (2 / np.pi) ** 0.5 * np.exp(-(ratio**2) / 2) + mean * tail
    return size, np.sqrt(np.maximum(second - size**2, 0))


def relative_to_mean(values: Values) -> Values:
    """Values divided by their mean absolute value."""
    return np.asarray(values / max(float(np.abs(values).mean()), 1e-30))


def spearman_correlation(one: Values, other: Values) -> float:
    """Spearman's rank correlation; ties are ordered by index. 1 for fewer than two values."""
    if len(one) < 2:
        return 1.0
    return float(np.corrcoef(fractional_ranks(one), fractional_ranks(other))[0, 1])
