"""Where the sizes of a network with gates were, step by step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....spaces.records.gate_history import GateHistory

MAX_PLOTTED_STEPS = 100  # steps, at most


@dataclass(frozen=True, slots=True, eq=False)
class GateTrajectory:
    """Both sizes as fractions of dense, step by step: float64 [T, 2], and what was asked for."""

    sizes: NDArray[np.float64]
    target: tuple[float | None, float | None]

    def gate_history(self) -> GateHistory:
        """So many of the steps as a plot needs, both ends among them."""
        last = len(self.sizes) - 1
        rows = np.unique(
            np.linspace(0, last, min(last + 1, MAX_PLOTTED_STEPS)).round().astype(int)
        )
        flops, params = self.sizes[rows].round(4).T.tolist()
        steps = tuple((rows + 1).tolist())
        return GateHistory(steps, tuple(flops), tuple(params), *self.target)
