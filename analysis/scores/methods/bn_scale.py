"""Scale of the batch norm after a channel (Liu et al. 2017, "Network Slimming").

s_i = |gamma_i|

We differ in: an atom without any batch norm scores the L2 norm of its filters, so that networks
with few norms can still be ranked.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ....spaces.graph.channels import Layer
from ....spaces.policy.layer_scores import LayerScores
from ..filter_ops import weight_of
from ..registry import Network, score
from .l2 import l2


@score("bn-scale")
def bn_scale(network: Network) -> LayerScores:
    """|gamma| of each channel, for each norm of an atom; L2 norm where there is no norm."""
    normed = network.per_atom_of_layers(norm_scale, kinds=("channelwise",))
    bare = l2(network)
    rest = ~np.isin(bare.atom, normed.atom)
    return LayerScores(
        np.concatenate((normed.value, bare.value[rest])),
        np.concatenate((normed.atom, bare.atom[rest])),
        np.concatenate((normed.layer, bare.layer[rest])),
    )


def norm_scale(layer: Layer, module: nn.Module) -> Tensor | None:
    """|gamma| of a norm, ones without affine parameters; None for other modules, such as PReLU."""
    if not isinstance(module, _NormBase):
        return None
    return weight_of(module).abs() if module.affine else torch.ones(len(layer.out_atoms))
