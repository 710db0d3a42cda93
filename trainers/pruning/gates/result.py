"""The result of gate training: the mask within the budget, and the network cut to it.

The gates are discretised to the target sizes, and the budget solver makes the mask fit exactly,
with the gate values as scores.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ....spaces.allocations.budget import Budget, fill_to_budget
from ....spaces.cost.cost import CostModel
from ....spaces.graph.reduce import expand_mask, reduce_channel_map
from ....spaces.records.gate_history import GateHistory
from ...training.loop import TrainingLog
from ..surgery import prune_network
from .discretize import discretize_gates
from .network import GATE_LIMIT, GatedNetwork
from .settings import GateTrainingSpec
from .trajectory import GateTrajectory


@dataclass(frozen=True, slots=True, eq=False)
class GateTrainingResult:
    """The cut network, its mask `keep` [A], and how it was found.

    `values` [A] order the atoms like a score. `flipped_atoms` is the number of atoms that were
    opened or closed after the training.
    """

    model: nn.Module
    keep: NDArray[np.bool_]
    values: NDArray[np.float64]
    flipped_atoms: int
    trajectory: GateTrajectory
    log: TrainingLog

    def gate_history(self) -> GateHistory:
        """The sizes during the training and the last step, for reports."""
        return replace(
            self.trajectory.gate_history(), moved=self.flipped_atoms, atoms=len(self.keep)
        )


def finalize_gates(
    network: GatedNetwork, remaining: NDArray[np.bool_], spec: GateTrainingSpec, log: TrainingLog
) -> GateTrainingResult:
    """Discretise the gates to the exact budget and cut the network.

    `remaining` [A] are the atoms of the dense network that are still in `network`.
    """
    space, limits = spec.space, spec.limits
    channel_map = reduce_channel_map(space.channel_map, remaining)
    cost_model, floor = CostModel(channel_map), max(spec.settings.floor, space.min_channels)
    opened = network.open_gates().cpu().numpy()
    gates = network.gates.detach().clamp(-GATE_LIMIT, GATE_LIMIT).double().cpu().numpy()
    scores = discretize_gates(gates, opened, cost_model, channel_map, limits, floor)
    inner = fill_to_budget(
        scores, cost_model, channel_map, Budget(*limits), floor=floor, round_to=space.round_to
    )
    values = np.full(len(remaining), -GATE_LIMIT)
    values[remaining] = gates
    sizes = network.sizes.cpu().numpy()[: log.steps] / np.maximum(space.cost_model.dense, 1)
    return GateTrainingResult(
        model=prune_network(network.model, channel_map, inner),
        keep=expand_mask(remaining, inner),
        values=values,
        flipped_atoms=int((opened != inner).sum()),
        trajectory=GateTrajectory(sizes, spec.target.fractions(space.cost_model.dense)),
        log=log,
    )
