"""What training gates gave: the mask within the budget, and the network cut to it.

The common solver takes the few steps that are left to the exact budget, with the gate values for
scores, and an ordinary cut network comes out.
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
    """What training gates gave: the mask within the budget and the network cut to it.

    `values` [A] order the atoms like a score; `moved` atoms were opened or closed by the solver.
    """

    model: nn.Module
    keep: NDArray[np.bool_]
    values: NDArray[np.float64]
    flipped_atoms: int
    trajectory: GateTrajectory
    log: TrainingLog

    def gate_history(self) -> GateHistory:
        """The way to the target and its last step, as far as a report tells them."""
        return replace(
            self.trajectory.gate_history(), moved=self.flipped_atoms, atoms=len(self.keep)
        )


def finalize_gates(
    network: GatedNetwork, remaining: NDArray[np.bool_], spec: GateTrainingSpec, log: TrainingLog
) -> GateTrainingResult:
    """The last step to the exact budget, and the cut. `left` [A]: what is still in the network."""
    space, limits = spec.space, spec.limits
    channel_map = reduce_channel_map(space.channel_map, remaining)
    price, floor = CostModel(channel_map), max(spec.settings.floor, space.min_channels)
    opened = network.open_gates().cpu().numpy()
    gates = network.gates.detach().clamp(-GATE_LIMIT, GATE_LIMIT).double().cpu().numpy()
    settled = discretize_gates(gates, opened, price, channel_map, limits, floor)
    inner = fill_to_budget(
        settled, price, channel_map, Budget(*limits), floor=floor, round_to=space.round_to
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
