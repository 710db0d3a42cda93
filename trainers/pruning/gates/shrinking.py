"""Cut what is closed for good while training goes on: later epochs get faster.

The cut session stands where the whole one stood: same step, same batches, and each weight that is
left with its momentum, which is cut like the weight itself.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray

from ....spaces.allocations.decode import Space
from ....spaces.cost.cost import Price
from ....spaces.cost.target import Target
from ....spaces.graph.channels import ChannelMap
from ....spaces.graph.reduce import reduce_map
from ...training.session import Session
from ..surgery import cut
from .feasibility import is_reachable
from .network import LIMIT, GatedNetwork

RESERVE = 0.15  # relative to the target


def closed_for_good(
    network: GatedNetwork, patience: int, space: Space, target: Target
) -> NDArray[np.bool_]:
    """Gates closed for `patience` steps and far from opening, lowest first, bool [A].

    Only so many that the network left can still have exactly the sizes of the target, and is
    larger by a reserve: at the end there must be atoms to choose from.
    """
    values = network.gates.detach().cpu().numpy()
    far = (network.closed.cpu().numpy() >= patience) & (values < -LIMIT / 2)
    order = np.argsort(np.where(far, values, np.inf), kind="stable")
    count = int(far.sum())
    while count:
        gone = np.zeros(len(values), dtype=bool)
        gone[order[:count]] = True
        if _leaves_room(space, ~gone, target):
            return gone
        count //= 2
    return np.zeros(len(values), dtype=bool)


def _leaves_room(space: Space, keep: NDArray[np.bool_], target: Target) -> bool:
    """Whether the network cut to a mask is large enough, and of the right make, for a target."""
    limits = target.limits(space.price.dense)
    sizes = zip(space.price.of(keep), limits, strict=True)
    if any(limit is not None and size < (1 + RESERVE) * limit for size, limit in sizes):
        return False
    channel_map = reduce_map(space.channel_map, keep)
    reduced = Space(channel_map, Price(channel_map), space.min_channels)
    return is_reachable(reduced, Target(*limits), space.min_channels)


def carry_gates(old: GatedNetwork, new: GatedNetwork, keep: NDArray[np.bool_]) -> None:
    """Give the gates that are left the state they had."""
    left = torch.from_numpy(keep).to(old.gates.device)
    with torch.no_grad():
        new.gates.copy_(old.gates[left])
    new.closed.copy_(old.closed[left])
    for name in ("loudness", "share", "sizes"):
        getattr(new, name).copy_(getattr(old, name))


def carry_momentum(
    old: Session, new: Session, channel_map: ChannelMap, keep: NDArray[np.bool_]
) -> None:
    """Give the new session's optimiser what the old one remembers of every weight."""
    whole, small = old.model, new.model
    assert isinstance(whole, GatedNetwork)
    assert isinstance(small, GatedNetwork)
    known, left = old.optimiser.state, torch.from_numpy(keep)
    for memory in sorted({name for state in known.values() for name in state}):
        shadow = copy.deepcopy(whole.model)  # holds the memories in the place of the weights
        for ours, theirs in zip(shadow.parameters(), whole.model.parameters(), strict=True):
            found = known[theirs].get(memory) if theirs in known else None
            if found is not None and found.shape == ours.shape:
                ours.data.copy_(found)
        remembered = cut(shadow, channel_map, keep).parameters()
        pairs = zip(whole.model.parameters(), small.model.parameters(), strict=True)
        for (before, after), cut_memory in zip(pairs, remembered, strict=True):
            if before in known:
                found = known[before][memory]
                same = found.shape == before.shape
                new.optimiser.state[after][memory] = cut_memory.detach() if same else found
        found = known[whole.gates][memory]
        same = found.shape == whole.gates.shape
        new.optimiser.state[small.gates][memory] = found[left.to(found.device)] if same else found
