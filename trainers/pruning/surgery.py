"""Cut a network: a deep copy in which only the kept channels are left, dense and smaller."""

from __future__ import annotations

import copy

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ...spaces.errors import UserError
from ...spaces.graph.channels import ChannelMap
from ...spaces.graph.slicing import slice_layers


def prune_network(model: nn.Module, channel_map: ChannelMap, keep: NDArray[np.bool_]) -> nn.Module:
    """A copy of a working copy, cut to a mask [A]; `model` itself stays as it is."""
    if keep.shape != (channel_map.atoms,):
        raise UserError(
            f"a mask must have one bool an atom, [{channel_map.atoms}], got {list(keep.shape)}; "
            "make it from the channel map of this network"
        )
    small = copy.deepcopy(model)
    slice_layers(small, channel_map, np.asarray(keep, dtype=bool))
    return small


def output_widths(channel_map: ChannelMap, keep: NDArray[np.bool_]) -> dict[str, int]:
    """The kept output channels of every layer."""
    padded = np.append(keep, True)
    return {layer.name: int(padded[layer.out_atoms].sum()) for layer in channel_map.layers}
