"""Cut what is closed for good while training goes on: later epochs get faster.

The cut session stands where the whole one stood: same step, same batches, and each weight that is
left with its momentum, which is cut like the weight itself.
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
    """Gates closed for `patience` steps and far from opening, lowest first, bool [A].

    Only so many that the network left can still have exactly the sizes of the target, and is
    larger by a reserve: at the end there must be atoms to choose from.
    """
    values = network.gates.detach().cpu().numpy()
    far = (network.closed.cpu().numpy() >= patience) & (values < -GATE_LIMIT / 2)
    order = np.argsort(np.where(far, values, np.inf), kind="stable")
    count = int(far.sum())
    while count:
        gone = np.zeros(len(values), dtype=bool)
        gone[order[:count]] = True
        if _keeps_target_reachable(space, ~gone, target):
            return gone
        count //= 2
    return np.zeros(len(values), dtype=bool)


def _keeps_target_reachable(space: PruningSpace, keep: NDArray[np.bool_], target: Target) -> bool:
    """Whether the network cut to a mask is large enough, and of the right make, for a target."""
    limits = target.limits(space.cost_model.dense)
    sizes = zip(space.cost_model.cost_of(keep), limits, strict=True)
    if any(limit is not None and size < (1 + SIZE_RESERVE) * limit for size, limit in sizes):
        return False
    channel_map = reduce_channel_map(space.channel_map, keep)
    reduced = PruningSpace(channel_map, CostModel(channel_map), space.min_channels)
    return is_target_reachable(reduced, Target(*limits), space.min_channels)


def transfer_gate_state(old: GatedNetwork, new: GatedNetwork, keep: NDArray[np.bool_]) -> None:
    """Give the gates that are left the state they had."""
    left = torch.from_numpy(keep).to(old.gates.device)
    with torch.no_grad():
        new.gates.copy_(old.gates[left])
    new.closed.copy_(old.closed[left])
    for name in ("loudness", "share", "sizes"):
        getattr(new, name).copy_(getattr(old, name))


def transfer_optimizer_state(
    old: TrainingSession, new: TrainingSession, channel_map: ChannelMap, keep: NDArray[np.bool_]
) -> None:
    """Give the new session's optimiser what the old one remembers of every weight."""
    whole, small = old.model, new.model
    assert isinstance(whole, GatedNetwork)
    assert isinstance(small, GatedNetwork)
    known, left = old.optimizer.state, torch.from_numpy(keep)
    for memory in sorted({name for state in known.values() for name in state}):
        shadow = copy.deepcopy(whole.model)  # holds the memories in the place of the weights
        for ours, theirs in zip(shadow.parameters(), whole.model.parameters(), strict=True):
            found = known[theirs].get(memory) if theirs in known else None
            if found is not None and found.shape == ours.shape:
                ours.data.copy_(found)
        remembered = prune_network(shadow, channel_map, keep).parameters()
        pairs = zip(whole.model.parameters(), small.model.parameters(), strict=True)
        for (before, after), cut_memory in zip(pairs, remembered, strict=True):
            if before in known:
                found = known[before][memory]
                same = found.shape == before.shape
                new.optimizer.state[after][memory] = cut_memory.detach() if same else found
        found = known[whole.gates][memory]
        same = found.shape == whole.gates.shape
        new.optimizer.state[small.gates][memory] = found[left.to(found.device)] if same else found
