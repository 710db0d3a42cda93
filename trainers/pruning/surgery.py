"""Cut a network to a mask: a smaller, dense copy with only the kept channels."""

from __future__ import annotations

import copy

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ...spaces.errors import UserError
from ...spaces.graph.channels import ChannelMap
from ...spaces.graph.slicing import slice_layers


def prune_network(model: nn.Module, channel_map: ChannelMap, keep: NDArray[np.bool_]) -> nn.Module:
    """Return a copy of `model` that is cut to a mask; `model` itself does not change.

    Args:
        model: A working copy of the network (`make_working_copy`).
        channel_map: Its channel map.
        keep: The mask, bool [A].

    Raises:
        UserError: if the mask has another shape.
    """
    if keep.shape != (channel_map.atoms,):
        raise UserError(
            f"a mask must have one bool per atom, [{channel_map.atoms}], got {list(keep.shape)}; "
            "make it from the channel map of this network"
        )
    small = copy.deepcopy(model)
    slice_layers(small, channel_map, np.asarray(keep, dtype=bool))
    return small


def output_widths(channel_map: ChannelMap, keep: NDArray[np.bool_]) -> dict[str, int]:
    """The number of kept output channels of every layer."""
    padded = np.append(keep, True)
    return {layer.name: int(padded[layer.out_atoms].sum()) for layer in channel_map.layers}
