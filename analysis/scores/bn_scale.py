"""Scale of the batch norm behind a channel (Liu et al. 2017, "Network Slimming").

s_i = |gamma_i|   summed over the norms of an atom

We differ in: an atom without any batch norm scores the L2 norm of its filters, so that networks
with few norms can still be ranked.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from ...spaces.channels import Layer
from .l2 import l2
from .registry import Network, Scores, score, weight_of


@score("bn-scale")
def bn_scale(network: Network) -> Scores:
    """|gamma| of each channel, summed over the norms of an atom."""
    gammas = network.per_atom_of_layers(scale, kinds=("channelwise",))
    normed = network.per_atom_of_layers(
        lambda layer, module: scale(layer, module).new_ones(len(layer.out_atoms)),
        kinds=("channelwise",),
    )
    return np.where(normed > 0, gammas, l2(network))


def scale(layer: Layer, module: nn.Module) -> Tensor:
    """The norm's |gamma|; ones where it has no affine part."""
    if getattr(module, "weight", None) is None:
        return module.running_mean.new_ones(len(layer.out_atoms))  # type: ignore[union-attr, operator]
    return weight_of(module).abs()
