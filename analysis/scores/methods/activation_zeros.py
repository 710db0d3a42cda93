"""Share of activations that are not zero: 1 - APoZ (Hu et al. 2016, "Network Trimming").

s_il = 1 - mean over images and positions of [x_i = 0],   x = the input of a layer l that reads i

An atom has one score for each layer that reads it. The score is informative only after a ReLU.

We differ in: inputs of the consumers instead of outputs of the producer, so pooling is included.
"""

from __future__ import annotations

from ....spaces.policy.layer_scores import LayerScores
from ..batch_view import Seen
from ..registry import batch_score


@batch_score("activation-zeros", "inputs", average=True)
def activation_zeros(seen: Seen) -> LayerScores:
    """Share of each channel's activations that are not zero."""
    return seen.per_input(lambda values: (values != 0).float().mean(1))
