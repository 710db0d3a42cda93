"""The channel map of a cut network, computed without a trace: the kept atoms, renumbered.

Gradual schedules continue with the reduced map. `expand_mask` converts a mask of the smaller
network to the atoms of the first network.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..arrays import Int32Array, Mask
from ..errors import UserError
from .channels import ChannelMap, Layer


def reduce_channel_map(channel_map: ChannelMap, keep: Mask) -> ChannelMap:
    """Return the map of the network cut to a mask [A]: its atoms are the kept ones, in order.

    Groups without a kept atom are dropped; `protected` and `unread` stay unchanged.

    Raises:
        UserError: If the mask has not one bool per atom.
    """
    if keep.shape != (channel_map.atoms,):
        raise UserError(
            f"a mask must have one bool per atom, [{channel_map.atoms}], got {list(keep.shape)}; "
            "make it from the channel map of this network"
        )
    present, group_of = np.unique(channel_map.group_of[keep], return_inverse=True)
    number = np.full(channel_map.atoms + 1, -1, dtype=np.int32)  # last entry: for atom -1
    number[:-1][keep] = np.arange(keep.sum(), dtype=np.int32)
    return replace(
        channel_map,
        layers=tuple(_reduce_layer(layer, number, keep) for layer in channel_map.layers),
        groups=tuple(channel_map.groups[group] for group in present),
        group_of=group_of.astype(np.int32),
    )


def expand_mask(keep: Mask, inner: Mask) -> Mask:
    """Return the mask [A] equal to the masks `keep` [A] and then `inner` [kept atoms]."""
    whole = keep.copy()
    whole[keep] = inner
    return whole


def _reduce_layer(layer: Layer, number: Int32Array, keep: Mask) -> Layer:
    stays = np.append(keep, True)
    out_atoms = layer.out_atoms[stays[layer.out_atoms]]
    in_atoms = layer.in_atoms[stays[layer.in_atoms]]
    conv_groups = layer.conv_groups
    if conv_groups > 1:  # whole convolution groups are removed; the width of each stays
        conv_groups = conv_groups * len(in_atoms) // len(layer.in_atoms)
    return replace(
        layer, out_atoms=number[out_atoms], in_atoms=number[in_atoms], conv_groups=conv_groups
    )
