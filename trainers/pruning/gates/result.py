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
from ....spaces.cost.cost import Price
from ....spaces.graph.reduce import expand_mask, reduce_map
from ....spaces.records.gate_history import Course
from ...training.loop import TrainLog
from ..surgery import cut
from .discretize import settle
from .network import LIMIT, GatedNetwork
from .settings import GateTask
from .trajectory import Trajectory


@dataclass(frozen=True, slots=True, eq=False)
class Gated:
    """What training gates gave: the mask within the budget and the network cut to it.

    `values` [A] order the atoms like a score; `moved` atoms were opened or closed by the solver.
    """

    model: nn.Module
    keep: NDArray[np.bool_]
    values: NDArray[np.float64]
    moved: int
    trajectory: Trajectory
    log: TrainLog

    def course(self) -> Course:
        """The way to the target and its last step, as far as a report tells them."""
        return replace(self.trajectory.course(), moved=self.moved, atoms=len(self.keep))


def conclude(
    network: GatedNetwork, left: NDArray[np.bool_], task: GateTask, log: TrainLog
) -> Gated:
    """The last step to the exact budget, and the cut. `left` [A]: what is still in the network."""
    space, limits = task.space, task.limits
    channel_map = reduce_map(space.channel_map, left)
    price, floor = Price(channel_map), max(task.settings.floor, space.min_channels)
    opened = network.open().cpu().numpy()
    gates = network.gates.detach().clamp(-LIMIT, LIMIT).double().cpu().numpy()
    settled = settle(gates, opened, price, channel_map, limits, floor)
    inner = fill_to_budget(
        settled, price, channel_map, Budget(*limits), floor=floor, round_to=space.round_to
    )
    values = np.full(len(left), -LIMIT)
    values[left] = gates
    sizes = network.sizes.cpu().numpy()[: log.steps] / np.maximum(space.price.dense, 1)
    return Gated(
        model=cut(network.model, channel_map, inner),
        keep=expand_mask(left, inner),
        values=values,
        moved=int((opened != inner).sum()),
        trajectory=Trajectory(sizes, task.target.fractions(space.price.dense)),
        log=log,
    )
