"""Random scores: the baseline that any other score has to beat.

s_i ~ uniform(0, 1)
"""

from __future__ import annotations

from ....spaces.policy.layer_scores import Scores
from ..registry import Network, score


@score("random")
def random(network: Network) -> Scores:
    """One uniform number per atom, drawn from `network.rng`."""
    return network.rng.random(network.channel_map.atoms)
