"""Cut permanently closed gates during the training, which makes later epochs faster.

The new session continues at the same step with the same batches. The momentum of each weight is
cut like the weight itself.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray

from ....spaces.allocations.decode import PruningSpace
from ....spaces.cost.cost import CostModel
from ....spaces.cost.target import Target
from ....spaces.graph.channels import ChannelMap
from ....spaces.graph.reduce import reduce_channel_map
from ...training.session import TrainingSession
from ..surgery import prune_network
from .feasibility import is_target_reachable
from .network import GATE_LIMIT, GatedNetwork

SIZE_RESERVE = 0.15  # relative to the target


def permanently_closed_gates(
    network: GatedNetwork, patience: int, space: PruningSpace, target: Target
) -> NDArray[np.bool_]:
    """Gates that were closed for `patience` steps and are far from opening, bool [A].

    The lowest gates come first. Their number is limited so that the remaining network can still
    reach the target and is larger by a reserve, from which the last step chooses.
    """
    values = network.gates.detach().cpu().numpy()
    far = (network.closed.cpu().numpy() >= patience) & (values < -GATE_LIMIT / 2)
    order = np.argsort(np.where(far, values, np.inf), kind="stable")
    count = int(far.sum())
    while count:
        removed = np.zeros(len(values), dtype=bool)
        removed[order[:count]] = True
        if _keeps_target_reachable(space, ~removed, target):
            return removed
        count //= 2
    return np.zeros(len(values), dtype=bool)


def _keeps_target_reachable(space: PruningSpace, keep: NDArray[np.bool_], target: Target) -> bool:
    """True if the network cut to a mask is large enough for a target and can reach it."""
    limits = target.limits(space.cost_model.dense)
    sizes = zip(space.cost_model.cost_of(keep), limits, strict=True)
    if any(limit is not None and size < (1 + SIZE_RESERVE) * limit for size, limit in sizes):
        return False
    channel_map = reduce_channel_map(space.channel_map, keep)
    reduced = PruningSpace(channel_map, CostModel(channel_map), space.min_channels)
    return is_target_reachable(reduced, Target(*limits), space.min_channels)


def transfer_gate_state(old: GatedNetwork, new: GatedNetwork, keep: NDArray[np.bool_]) -> None:
    """Copy the state of the remaining gates."""
    remaining = torch.from_numpy(keep).to(old.gates.device)
    with torch.no_grad():
        new.gates.copy_(old.gates[remaining])
    new.closed.copy_(old.closed[remaining])
    for name in ("loudness", "share", "sizes"):
        getattr(new, name).copy_(getattr(old, name))


def transfer_optimizer_state(
    old: TrainingSession, new: TrainingSession, channel_map: ChannelMap, keep: NDArray[np.bool_]
) -> None:
    """Copy the optimizer state of the remaining weights and gates.

    Each entry of the state (the momentum) takes the place of the weights in a copy of the old
    network, which is then cut like the network itself.
    """
    old_net, new_net = old.model, new.model
    assert isinstance(old_net, GatedNetwork)
    assert isinstance(new_net, GatedNetwork)
    states, remaining = old.optimizer.state, torch.from_numpy(keep)
    for entry in sorted({name for state in states.values() for name in state}):
        carrier = copy.deepcopy(old_net.model)
        for slot, weight in zip(carrier.parameters(), old_net.model.parameters(), strict=True):
            value = states[weight].get(entry) if weight in states else None
            if value is not None and value.shape == slot.shape:
                slot.data.copy_(value)
        cut_values = prune_network(carrier, channel_map, keep).parameters()
        pairs = zip(old_net.model.parameters(), new_net.model.parameters(), strict=True)
        for (before, after), cut_value in zip(pairs, cut_values, strict=True):
            if before in states:
                value = states[before][entry]
                same = value.shape == before.shape
                new.optimizer.state[after][entry] = cut_value.detach() if same else value
        value = states[old_net.gates][entry]
        same = value.shape == old_net.gates.shape
        new.optimizer.state[new_net.gates][entry] = (
            value[remaining.to(value.device)] if same else value
        )
