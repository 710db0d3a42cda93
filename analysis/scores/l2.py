"""Euclidean norm of a filter.

s_i = sqrt(sum w^2)   over the weights of filter i, summed over the layers of an atom
"""

from __future__ import annotations

from .registry import Network, Scores, score


@score("l2")
def l2(network: Network) -> Scores:
    """L2 norm of each filter, summed over the layers of an atom."""
    return network.per_atom(lambda weight: weight.flatten(1).norm(dim=1))
