"""Mean absolute activation of a channel where it is consumed (Molchanov et al. 2017, section 2.2).

s_il = mean over images and positions of |x_i|,   x = the input of a layer l that reads atom i

An atom has a part for each layer that reads it.

We differ in: the mean of the absolute value, as activations need not be positive; inputs of the
consumers instead of outputs of the producer, so norm and nonlinearity are behind it.
"""

from __future__ import annotations

from ....spaces.policy.layer_scores import LayerScores
from ..batch_view import Seen
from ..registry import batch_score


@batch_score("activation-mean", "inputs", average=True)
def activation_mean(seen: Seen) -> LayerScores:
    """Mean |activation| of each channel, a part for each layer that reads it."""
    return seen.per_input(lambda values: values.abs().mean(1))
