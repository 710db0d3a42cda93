"""Mean absolute weight of a filter (Salama et al. 2019, "Pruning at a Glance").

s_i = (1 / n) sum |w|   over the n weights of filter i

A coupled atom has one score for each layer that produces it.
"""

from __future__ import annotations

from ....spaces.policy.layer_scores import LayerScores
from ..registry import Network, score


@score("mean-abs-weight")
def mean_abs_weight(network: Network) -> LayerScores:
    """Mean |w| of each filter, for each layer of an atom."""
    return network.per_atom(lambda weight: weight.abs().flatten(1).mean(1))
