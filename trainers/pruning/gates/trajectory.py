"""The sizes of a gated network during the training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....spaces.records.gate_history import GateHistory

MAX_PLOTTED_STEPS = 100


@dataclass(frozen=True, slots=True, eq=False)
class GateTrajectory:
    """Both sizes after each step as fractions of dense, float64 [T, 2], and the target."""

    sizes: NDArray[np.float64]
    target: tuple[float | None, float | None]

    def gate_history(self) -> GateHistory:
        """Evenly spaced steps for a plot, with the first and the last one."""
        last = len(self.sizes) - 1
        rows = np.unique(
            np.linspace(0, last, min(last + 1, MAX_PLOTTED_STEPS)).round().astype(int)
        )
        flops, params = self.sizes[rows].round(4).T.tolist()
        steps = tuple((rows + 1).tolist())
        return GateHistory(steps, tuple(flops), tuple(params), *self.target)
