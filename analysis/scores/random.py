"""Random scores: the control that any other score has to beat.

s_i ~ uniform(0, 1)
"""

from __future__ import annotations

from .registry import Network, Scores, score


@score("random")
def random(network: Network) -> Scores:
    """One uniform number an atom, from the network view's own generator."""
    return network.rng.random(network.channel_map.atoms)
