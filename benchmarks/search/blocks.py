"""The peers' part of the network: channels within blocks, and back from their networks to ours.

Neither peer can cut the residual streams of a ResNet with parameter-free shortcuts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from benchmarks.scene import Scene
from paretoprune.spaces.cost.cost import CostModel
from paretoprune.spaces.graph.channels import ChannelMap
from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.trainers.pruning.surgery import prune_network

STREAMS = ("conv1", "layer*.*.conv2")  # layers whose outputs are the residual streams


def streams_kept(scene: Scene) -> ChannelMap:
    """The channel map in which only channels within blocks are free."""
    return trace_channel_map(scene.model, scene.data.input_shape, keep=STREAMS)


def plain(peer: nn.Module, scene: Scene, free: ChannelMap) -> tuple[nn.Module, float]:
    """A peer's network as a plain network of ours, and its share of the FLOPs by our price.

    Its widths say how many atoms of each group stay; its weights then fit the cut network exactly.
    """
    state: dict[str, Any] = dict(peer.state_dict())
    keep = np.zeros(free.atoms, dtype=bool)
    for index, group in enumerate(free.groups):
        members = np.flatnonzero(free.group_of == index)
        keep[members[: len(state[f"{group.name}.weight"])]] = True
    network = prune_network(scene.model, free, keep)
    wanted = network.state_dict()
    network.load_state_dict({name: state[name].contiguous() for name in wanted})
    price = CostModel(free)
    return network, float(price.cost_of(keep)[0] / price.dense[0])
