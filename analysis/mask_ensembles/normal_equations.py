"""The sums that a linear model is fitted from: all that is kept of any number of masks.

sum x x' (8 F^2 bytes, the only large one), sum x y, sum x, sum y, sum y^2 over the samples (x, y).
The vectors are kept for two halves of the samples, whose disagreement says how settled a fit is.
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
    """Two halves of the samples that are added at once."""
    return slice(0, count // 2), slice(count // 2, count)


@dataclass(slots=True, eq=False)
class NormalEquations:
    """Normal equations; a leading 2 are the halves."""

    columns: DesignMatrix
    gram: Values  # [F, F], sum x x'
    moment: Values  # [2, F], sum x y
    row: Values  # [2, F], sum x
    target: Values  # [2, 3]: samples, sum y, sum y^2

    @property
    def samples(self) -> int:
        """How many samples were added."""
        return int(self.target[:, 0].sum())

    def add(self, masks: Masks, targets: Values) -> None:
        """Take in masks bool [n, A] with their targets [n]."""
        rows = torch.from_numpy(self.columns.rows(masks)).double()
        torch.from_numpy(self.gram).addmm_(rows.T, rows)
        for half, part in enumerate(half_slices(len(targets))):
            x, y = rows.numpy()[part], targets[part]
            self.moment[half] += y @ x
            self.row[half] += x.sum(axis=0)
            self.target[half] += (len(y), y.sum(), y @ y)

    def state_arrays(self) -> NamedArrays:
        """The arrays by name, to be saved."""
        return {f"sums/{name}": getattr(self, name) for name in ARRAYS}

    def load_state_arrays(self, tables: NamedArrays) -> None:
        """Become what `tables` saved."""
        for name in ARRAYS:
            setattr(self, name, np.array(tables[f"sums/{name}"], dtype=np.float64))


ARRAYS = ("gram", "moment", "row", "target")


def empty_normal_equations(columns: DesignMatrix) -> NormalEquations:
    """Sums of no samples."""
    count = columns.count
    vectors = np.zeros((2, 2, count))
    return NormalEquations(
        columns, np.zeros((count, count)), vectors[0], vectors[1], np.zeros((2, 3))
    )
