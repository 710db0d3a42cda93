"""Mean absolute activation of a channel at its consumers (Molchanov et al. 2017, section 2.2).

s_il = mean over images and positions of |x_i|,   x = the input of a layer l that reads atom i

An atom has one score for each layer that reads it.

We differ in: the mean of absolute values, as activations may be negative; inputs of the consumers
instead of outputs of the producer, so the score includes norm and nonlinearity.
"""

from __future__ import annotations

from ....spaces.policy.layer_scores import LayerScores
from ..batch_view import Seen
from ..registry import batch_score


@batch_score("activation-mean", "inputs", average=True)
def activation_mean(seen: Seen) -> LayerScores:
    """Mean |activation| of each channel, for each layer that reads it."""
    return seen.per_input(lambda values: values.abs().mean(1))
