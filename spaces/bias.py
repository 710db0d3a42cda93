"""Bias removal: make the scores of different groups comparable before one threshold ranks them.

none   s
max    s / max of its group          mean   s / mean of its group
l2     s / L2 norm of its group      rank   (rank within its group + 1) / size of the group

fan-in    each part of s / the number of weights of one filter in its layer

a * s + b with a and b of the group's stage: one stage a resolution, the finest first (LeGR, Chin
et al. 2020, has a pair a layer);

and, apart from that, division by the price of the atom:  s / price^power,
price = (1 - blend) * macs / sum of macs + blend * params / sum of params.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .channels import ChannelMap
from .parts import WHOLE, Parts, Scores

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
    "fan-in": lambda s: s,  # done where the parts are still apart
}


def normalise(scores: Scores, channel_map: ChannelMap, how: str) -> Scores:
    """Apply one of the rules above within each group."""
    result = np.empty_like(scores)
    for group in range(len(channel_map.groups)):
        atoms = np.flatnonzero(channel_map.group_of == group)
        result[atoms] = WITHIN_GROUP[how](scores[atoms])
    return result


def divide_by_fan_in(parts: Parts, channel_map: ChannelMap) -> Parts:
    """Each layer's part over the number of weights that one filter has there."""
    sizes = [
        layer.params_per_pair * len(layer.in_atoms) // layer.conv_groups
        for layer in channel_map.layers
    ]
    weights = np.array([*sizes, 1])[np.where(parts.layer == WHOLE, -1, parts.layer)]
    return replace(parts, value=parts.value / np.maximum(weights, 1))


def stages_of(channel_map: ChannelMap) -> NDArray[np.int64]:
    """The stage of every group [G]: its place among the resolutions, the finest first."""
    positions = {
        layer.name: layer.macs_per_pair // max(layer.params_per_pair, 1)
        for layer in channel_map.layers
    }
    finest = [max(positions[name] for name in group.layers) for group in channel_map.groups]
    return np.unique(-np.array(finest, dtype=np.int64), return_inverse=True)[1]


def rescale_stages(scores: Scores, channel_map: ChannelMap, pairs: tuple[float, ...]) -> Scores:
    """a * s + b, stage by stage; the last pair serves the stages beyond it too."""
    if not pairs:
        return scores
    table = np.array(pairs).reshape(-1, 2)
    stage = np.minimum(stages_of(channel_map), len(table) - 1)[channel_map.group_of]
    rescaled: Scores = table[stage, 0] * scores + table[stage, 1]
    return rescaled


def divide_by_price(scores: Scores, marginal: Scores, *, power: float, blend: float) -> Scores:
    """Scores [A] over the marginal price [A, 2] of each atom, to a power."""
    if power == 0:
        return scores
    shares = marginal / np.maximum(marginal.sum(0), TINY)
    price = (1 - blend) * shares[:, 0] + blend * shares[:, 1]
    scale = np.maximum(price / max(price.mean(), TINY), 1e-12) ** power
    divided: Scores = np.where(scores < 0, scores * scale, scores / scale)
    return divided
