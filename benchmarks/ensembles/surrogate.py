"""The surrogate: what a mask will cost by the linear model, for thousands of masks a second.

change(x) = level + (x - centre)'b,    std(x)^2 = level_error^2 + |root'(x - centre)|^2

The standard error is that of the coefficients; what a linear model cannot express is not in it.
So `beyond` tells the masks that remove more than any that was measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paretoprune.analysis.mask_ensembles.design_matrix import DesignMatrix, removed_shares
from paretoprune.analysis.mask_ensembles.masks import Masks
from paretoprune.analysis.mask_ensembles.result import EnsembleResult
from paretoprune.spaces.graph.channels import ChannelMap

Values = NDArray[np.float64]
MASKS_PER_BLOCK = 1024  # masks at once, to stay in the cache


@dataclass(frozen=True, slots=True, eq=False)
class Surrogate:
    """The loss change of masks, in the ensemble's unit, and how sure it is."""

    columns: DesignMatrix
    coefficients: NDArray[np.float32]  # [F]
    level: float
    level_error: float
    centre: NDArray[np.float32]  # [F]
    root: NDArray[np.float32]  # [F, r], or [F]: independent errors
    reach: Values  # [G + 1]

    def predict_mean(self, masks: Masks) -> Values:
        """The loss change of masks bool [B, A]: [B]."""
        mean = np.empty(len(masks))
        for part, rows in self._blocks(masks):
            mean[part] = rows @ self.coefficients
        return np.asarray(mean + self.level - self.centre @ self.coefficients)

    def predict(self, masks: Masks) -> tuple[Values, Values]:
        """The loss change [B] and its standard error [B] of masks bool [B, A]."""
        mean, variance = np.empty(len(masks)), np.empty(len(masks))
        for part, rows in self._blocks(masks):
            away = rows - self.centre
            spread = away * self.root if self.root.ndim == 1 else away @ self.root
            mean[part] = away @ self.coefficients + self.level
            variance[part] = np.einsum("bi,bi->b", spread, spread) + self.level_error**2
        return mean, np.sqrt(variance)

    def extrapolates(self, masks: Masks) -> NDArray[np.bool_]:
        """Which masks [B, A] remove more, of a group or of all, than any that was measured."""
        return np.asarray(
            (removed_shares(masks, self.columns.group_of) > self.reach + 1e-6).any(axis=1)
        )

    def _blocks(self, masks: Masks) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        for start in range(0, len(masks), MASKS_PER_BLOCK):
            part = slice(start, min(start + MASKS_PER_BLOCK, len(masks)))
            yield part, self.columns.rows(masks[part])


def build_surrogate(ensemble: EnsembleResult, channel_map: ChannelMap) -> Surrogate:
    """The surrogate that an ensemble of this network gives."""
    return Surrogate(
        columns=DesignMatrix(channel_map.group_of, ensemble.settings.curvature),
        coefficients=ensemble.coefficients.astype(np.float32),
        level=ensemble.level,
        level_error=ensemble.level_error,
        centre=ensemble.centre.astype(np.float32),
        root=ensemble.root,
        reach=ensemble.reach,
    )
