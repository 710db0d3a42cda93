"""First-order Taylor expansion in the weights of a filter: gradient times weight.

s_il = sum over mini-batches b of sum over the weights w of filter i in layer l of |g_b * w|

A coupled atom has one score for each layer that produces it.

We differ in: g_b is the gradient of the loss summed over the batch, so a short last batch counts
less; only weights of convolutions and linear layers are used, biases and norms are left out.
"""

from __future__ import annotations

from ....spaces.policy.layer_scores import LayerScores
from ..batch_view import Seen
from ..registry import batch_score


@batch_score("weight-gradient", "weights")
def weight_gradient(seen: Seen) -> LayerScores:
    """Sum of |gradient * weight| of each filter, for each layer of an atom."""
    return seen.per_filter(lambda weight, gradient: (gradient * weight).abs().flatten(1).sum(1))
