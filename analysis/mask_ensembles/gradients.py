"""Scores from gradients of the loss in the mask, averaged over random masks.

mean      s_i = E[-dy/dm_i]        absolute  s_i = E|dy/dm_i|        square  s_i = E (dy/dm_i)^2

over random masks m, with y the transformed loss of one sample. If the loss is multilinear in the
mask, the mean gradient is the linear model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...spaces.arrays import NamedArrays
from .masks import Masks
from .normal_equations import half_slices
from .ridge import Prior, RidgeFit

Values = NDArray[np.float64]
# The rows of `powers` that hold a variant and its square.
VARIANT_POWERS = {"mean": (0, 2), "absolute": (1, 2), "square": (2, 3)}


@dataclass(slots=True, eq=False)
class GradientSums:
    """Sums over the samples, kept for two halves."""

    powers: Values  # [2, 4, A]: g, |g|, g^2, g^4
    count: Values  # [2]
    removed: Values  # [A], sum of the removed atoms
    target: Values  # [2], sum y, sum y^2

    @property
    def samples(self) -> int:
        """The number of samples."""
        return int(self.count.sum())

    def add(self, masks: Masks, targets: Values, gradients: Values) -> None:
        """Add masks bool [n, A] with their loss changes [n] and gradients [n, A]."""
        for half, part in enumerate(half_slices(len(gradients))):
            g = gradients[part]
            sums = (g.sum(0), np.abs(g).sum(0), (g**2).sum(0), (g**4).sum(0))
            self.powers[half] += np.stack(sums)
            self.count[half] += len(g)
        self.removed += len(masks) - masks.sum(axis=0)
        self.target += (targets.sum(), targets @ targets)

    def merge(self, other: GradientSums) -> None:
        """Add the sums of another instance."""
        for name in ARRAYS:
            mine: Values = getattr(self, name)
            mine += getattr(other, name)

    def scores(self, variant: str) -> tuple[Values, Values, Values]:
        """Mean [A] of a variant, its standard error [A], and the means of both halves [2, A]."""
        value, square = VARIANT_POWERS[variant]
        count = max(self.samples, 1)
        mean, second = self.powers.sum(axis=0)[[value, square]] / count
        error = np.sqrt(np.maximum(second - mean**2, 0) / count)
        return mean, error, self.powers[:, value] / np.maximum(self.count, 1)[:, None]

    def linear_fit(self) -> RidgeFit:
        """The linear model whose coefficients are the mean gradients."""
        mean, error, _ = self.scores("mean")
        count = max(self.samples, 1)
        level, square = self.target / count
        noise = max(square - level**2, 0.0)
        no_prior = Prior(np.zeros((len(mean), 0)), np.ones(len(mean)))
        start = (self.removed / count, float(level), float(np.sqrt(noise / count)))
        return RidgeFit(mean, *start, noise, 0.0, np.zeros(0), no_prior, error)

    def state_arrays(self) -> NamedArrays:
        """The arrays to save, by name."""
        return {f"gradients/{name}": getattr(self, name) for name in ARRAYS}

    def load_state_arrays(self, arrays: NamedArrays) -> None:
        """Restore saved arrays."""
        for name in ARRAYS:
            setattr(self, name, np.array(arrays[f"gradients/{name}"], dtype=np.float64))


ARRAYS = ("powers", "count", "removed", "target")


def empty_gradients(atoms: int) -> GradientSums:
    """Return sums without samples."""
    return GradientSums(np.zeros((2, 4, atoms)), np.zeros(2), np.zeros(atoms), np.zeros(2))
