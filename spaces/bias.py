"""Bias removal: make the scores of different groups comparable before one threshold ranks them.

none   s
max    s / max of its group          mean   s / mean of its group
l2     s / L2 norm of its group      rank   (rank within its group + 1) / size of the group

and, apart from that, division by the price of the atom:  s / price^power,
price = (1 - blend) * macs / sum of macs + blend * params / sum of params.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .channels import ChannelMap

Scores = NDArray[np.float64]
TINY = np.finfo(np.float64).tiny


def ranks(scores: Scores) -> Scores:
    """Rank in (0, 1], the lowest first; ties by index."""
    order = np.argsort(scores, kind="stable")
    result = np.empty(len(scores))
    result[order] = np.arange(1, len(scores) + 1) / len(scores)
    return result


WITHIN_GROUP: dict[str, Callable[[Scores], Scores]] = {
    "none": lambda s: s,
    "max": lambda s: s / max(np.abs(s).max(), TINY),
    "mean": lambda s: s / max(np.abs(s).mean(), TINY),
    "l2": lambda s: s / max(float(np.linalg.norm(s)), TINY),
    "rank": ranks,
}


def normalise(scores: Scores, channel_map: ChannelMap, how: str) -> Scores:
    """Apply one of the rules above within each group."""
    result = np.empty_like(scores)
    for group in range(len(channel_map.groups)):
        atoms = np.flatnonzero(channel_map.group_of == group)
        result[atoms] = WITHIN_GROUP[how](scores[atoms])
    return result


def divide_by_price(scores: Scores, marginal: Scores, *, power: float, blend: float) -> Scores:
    """Scores [A] over the marginal price [A, 2] of each atom, to a power."""
    if power == 0:
        return scores
    shares = marginal / np.maximum(marginal.sum(0), TINY)
    price = (1 - blend) * shares[:, 0] + blend * shares[:, 1]
    scale = np.maximum(price / max(price.mean(), TINY), 1e-12) ** power
    return np.where(scores < 0, scores * scale, scores / scale)
