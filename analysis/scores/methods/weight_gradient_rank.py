"""Ranks of gradient times weight within each layer (Li et al. 2020, "Balanced performance").

s_il = sum over mini-batches b of r_bil / n_l,   r_bil = the rank, lowest first, among the n_l
atoms of layer l of   t_bil = sum over the weights w of filter i of |g_b * w|

A coupled atom has one score for each layer that produces it; the paper uses the later layer.

We differ in: calibration images are from train (the paper's code ranks on the test set) and the
network is in eval mode; filters of one atom are ranked as one; biases and norms are
left out.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ....spaces.policy.layer_scores import LayerScores
from ....spaces.policy.normalization import fractional_ranks
from ..batch_view import Seen
from ..registry import batch_score
from .weight_gradient import weight_gradient


@batch_score("weight-gradient-rank", "weights")
def weight_gradient_rank(seen: Seen) -> LayerScores:
    """Rank in (0, 1] of each atom's |gradient * weight| within each of its layers."""
    parts = weight_gradient(seen)
    value = np.empty_like(parts.value)
    for layer in np.unique(parts.layer):
        own = parts.layer == layer
        value[own] = fractional_ranks(parts.value[own])
    value[~np.isfinite(parts.value)] = np.nan  # the rank of NaN would be finite
    return replace(parts, value=value)
