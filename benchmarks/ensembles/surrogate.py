"""Surrogate: the linear model of an ensemble predicts the loss change of any mask.

change(x) = level + (x - centre)'b,    std(x)^2 = level_error^2 + |root'(x - centre)|^2

The standard error covers the coefficients, not the error of the linear model itself.
`extrapolates` marks the masks that remove more than any measured mask.
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
MASKS_PER_BLOCK = 1024  # masks per block, so that it fits into the cache


@dataclass(frozen=True, slots=True, eq=False)
class Surrogate:
    """Predicts the loss change of masks and its standard error, in the ensemble's unit."""

    columns: DesignMatrix
    coefficients: NDArray[np.float32]  # [F]
    level: float
    level_error: float
    centre: NDArray[np.float32]  # [F]
    root: NDArray[np.float32]  # [F, r], or [F] for independent errors
    reach: Values  # [G + 1]

    def predict_mean(self, masks: Masks) -> Values:
        """Predict the loss change [B] of masks bool [B, A]."""
        mean = np.empty(len(masks))
        for part, rows in self._blocks(masks):
            mean[part] = rows @ self.coefficients
        return np.asarray(mean + self.level - self.centre @ self.coefficients)

    def predict(self, masks: Masks) -> tuple[Values, Values]:
        """Predict the loss change [B] of masks bool [B, A], and its standard error [B]."""
        mean, variance = np.empty(len(masks)), np.empty(len(masks))
        for part, rows in self._blocks(masks):
            away = rows - self.centre
            spread = away * self.root if self.root.ndim == 1 else away @ self.root
            mean[part] = away @ self.coefficients + self.level
            variance[part] = np.einsum("bi,bi->b", spread, spread) + self.level_error**2
        return mean, np.sqrt(variance)

    def extrapolates(self, masks: Masks) -> NDArray[np.bool_]:
        """Which masks [B, A] remove more, of a group or in total, than any measured mask."""
        return np.asarray(
            (removed_shares(masks, self.columns.group_of) > self.reach + 1e-6).any(axis=1)
        )

    def _blocks(self, masks: Masks) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        for start in range(0, len(masks), MASKS_PER_BLOCK):
            part = slice(start, min(start + MASKS_PER_BLOCK, len(masks)))
            yield part, self.columns.rows(masks[part])


def build_surrogate(ensemble: EnsembleResult, channel_map: ChannelMap) -> Surrogate:
    """Build the surrogate of an ensemble of this network."""
    return Surrogate(
        columns=DesignMatrix(channel_map.group_of, ensemble.settings.curvature),
        coefficients=ensemble.coefficients.astype(np.float32),
        level=ensemble.level,
        level_error=ensemble.level_error,
        centre=ensemble.centre.astype(np.float32),
        root=ensemble.root,
        reach=ensemble.reach,
    )
