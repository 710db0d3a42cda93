"""How rarely a channel is zero: 1 - APoZ (Hu et al. 2016, "Network Trimming").

s_il = 1 - mean over images and positions of [x_i = 0],   x = the input of a layer l that reads i

An atom has a part for each layer that reads it. Only behind a ReLU does it tell channels apart.

We differ in: inputs of the consumers instead of outputs of the producer, behind any pooling.
"""

from __future__ import annotations

from ....spaces.policy.layer_scores import LayerScores
from ..batch_view import Seen
from ..registry import batch_score


@batch_score("activation-zeros", "inputs", average=True)
def activation_zeros(seen: Seen) -> LayerScores:
    """Share of each channel's activations that are not zero."""
    return seen.per_input(lambda values: (values != 0).float().mean(1))
