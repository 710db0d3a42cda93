"""Normal equations of a linear model: sums whose size does not depend on the number of masks.

    sum x x' (8 F^2 bytes, the largest),  sum x y,  sum x,  sum y,  sum y^2     over samples (x, y)

The vectors are kept for two halves of the samples; their disagreement measures convergence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ...spaces.arrays import NamedArrays
from .design_matrix import DesignMatrix
from .masks import Masks

Values = NDArray[np.float64]


def half_slices(count: int) -> tuple[slice, slice]:
    """Split samples that are added together into two halves."""
    return slice(0, count // 2), slice(count // 2, count)


@dataclass(slots=True, eq=False)
class NormalEquations:
    """The sums; a leading dimension of 2 separates the halves."""

    columns: DesignMatrix
    gram: Values  # [F, F], sum x x'
    moment: Values  # [2, F], sum x y
    row: Values  # [2, F], sum x
    target: Values  # [2, 3]: samples, sum y, sum y^2

    @property
    def samples(self) -> int:
        """The number of samples."""
        return int(self.target[:, 0].sum())

    def add(self, masks: Masks, targets: Values) -> None:
        """Add masks bool [n, A] with their targets [n]."""
        rows = torch.from_numpy(self.columns.rows(masks)).double()
        torch.from_numpy(self.gram).addmm_(rows.T, rows)
        for half, part in enumerate(half_slices(len(targets))):
            x, y = rows.numpy()[part], targets[part]
            self.moment[half] += y @ x
            self.row[half] += x.sum(axis=0)
            self.target[half] += (len(y), y.sum(), y @ y)

    def state_arrays(self) -> NamedArrays:
        """The arrays to save, by name."""
        return {f"sums/{name}": getattr(self, name) for name in ARRAYS}

    def load_state_arrays(self, arrays: NamedArrays) -> None:
        """Restore saved arrays."""
        for name in ARRAYS:
            setattr(self, name, np.array(arrays[f"sums/{name}"], dtype=np.float64))


ARRAYS = ("gram", "moment", "row", "target")


def empty_normal_equations(columns: DesignMatrix) -> NormalEquations:
    """Return sums without samples."""
    count = columns.count
    vectors = np.zeros((2, 2, count))
    return NormalEquations(
        columns, np.zeros((count, count)), vectors[0], vectors[1], np.zeros((2, 3))
    )
