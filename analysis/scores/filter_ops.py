"""Filters of layers, and the conversion of per-channel values to scores of atoms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from ...spaces.graph.channels import ChannelMap
from ...spaces.policy.layer_scores import LayerScores


def weight_of(module: nn.Module) -> Tensor:
    """The weight tensor of a layer, in the module's layout."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight


def filters_of(module: nn.Module, tensor: Tensor) -> Tensor:
    """Rearrange a layer's weight, or a tensor of its shape, to one row per filter: [C_out, ...].

    A transposed convolution stores [C_in, C_out / groups, ...].
    """
    if not isinstance(module, _ConvTransposeNd):
        return tensor
    by_group = tensor.reshape(module.groups, -1, *tensor.shape[1:])
    return by_group.transpose(1, 2).flatten(0, 1)


def to_layer_scores(
    channels: Mapping[int, Tensor],
    channel_map: ChannelMap,
    side: Literal["out", "in"] = "out",
    *,
    average: bool = False,
) -> LayerScores:
    """Convert per-channel values to scores by atom and layer.

    Args:
        channels: Values [C] by layer index, C being the channels on `side` of the layer.
        channel_map: The network's channel map.
        side: Whether the values belong to output or input channels.
        average: Average an atom's channels within a layer instead of adding them.
    """
    empty = np.zeros(0, dtype=np.int32)
    values, atoms, layers = [empty.astype(np.float64)], [empty], [empty]
    for index, numbers in channels.items():
        layer = channel_map.layers[index]
        atom_of = layer.out_atoms if side == "out" else layer.in_atoms
        owned = atom_of >= 0
        own, position = np.unique(atom_of[owned], return_inverse=True)
        value = np.bincount(position, numbers.detach().to("cpu", torch.float64).numpy()[owned])
        values.append(value / (np.bincount(position) if average else 1))
        atoms.append(own)
        layers.append(np.full(len(own), index, dtype=np.int32))
    return LayerScores(np.concatenate(values), np.concatenate(atoms), np.concatenate(layers))
