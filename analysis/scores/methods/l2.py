"""Euclidean norm of a filter.

s_i = sqrt(sum w^2)   over the weights of filter i
"""

from __future__ import annotations

from ....spaces.policy.layer_scores import LayerScores
from ..registry import Network, score


@score("l2")
def l2(network: Network) -> LayerScores:
    """L2 norm of each filter, for each layer of an atom."""
    return network.per_atom(lambda weight: weight.flatten(1).norm(dim=1))
