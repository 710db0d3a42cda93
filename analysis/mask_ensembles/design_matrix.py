"""Rows of the linear model: the features of a mask whose weighted sum models the loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .masks import Masks


@dataclass(frozen=True, slots=True, eq=False)
class DesignMatrix:
    """x = removed atoms 0/1 [A] and, with curvature, n_g * (share removed of group g)^2 [G]."""

    group_of: NDArray[np.int32]  # [A]
    curvature: bool = False

    @property
    def atoms(self) -> int:
        """The number of atoms A."""
        return len(self.group_of)

    @property
    def count(self) -> int:
        """The number of features F."""
        return self.atoms + (int(self.group_of.max()) + 1 if self.curvature else 0)

    def rows(self, masks: Masks) -> NDArray[np.float32]:
        """Convert masks bool [n, A] to rows [n, F]."""
        removed = np.logical_not(masks).astype(np.float32)
        if not self.curvature:
            return removed
        groups = group_membership(self.group_of)
        squared = (removed @ groups) ** 2 / groups.sum(axis=0)
        return np.concatenate((removed, squared), axis=1)


def group_membership(group_of: NDArray[np.int32]) -> NDArray[np.float32]:
    """Membership matrix: 1 where the atom is in the group, else 0, [A, G]."""
    groups = np.arange(int(group_of.max()) + 1)
    return np.asarray(group_of[:, None] == groups, dtype=np.float32)


def removed_shares(masks: Masks, group_of: NDArray[np.int32]) -> NDArray[np.float64]:
    """Removed share of each group and, last, of all atoms: [n, G + 1]."""
    groups = group_membership(group_of)
    removed = np.logical_not(masks).astype(np.float32) @ groups
    total = removed.sum(axis=1, keepdims=True) / len(group_of)
    return np.concatenate((removed / groups.sum(axis=0), total), axis=1, dtype=np.float64)
