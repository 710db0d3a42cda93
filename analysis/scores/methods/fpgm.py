"""Distance to the other filters (FPGM, He et al. 2019: "Filter pruning via geometric median").

s_il = sum over the filters j of layer l of |w_i - w_j|_2

The filter nearest to the geometric median has the lowest sum: the others can replace it.

We differ in: protected filters count among the others; biases and norms are left out. A layer's
only filter scores 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ....spaces.policy.layer_scores import LayerScores
from ..registry import Network, score


@score("fpgm")
def fpgm(network: Network) -> LayerScores:
    """Sum of Euclidean distances from each filter to all others, for each layer of an atom."""
    return network.per_atom(distance_sums)


def distance_sums(weight: Tensor) -> Tensor:
    """Sum of distances from each filter to all filters of its layer."""
    filters = weight.detach().flatten(1)
    return torch.cdist(filters, filters).sum(1)
