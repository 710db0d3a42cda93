"""Bias removal: make scores of different groups comparable before one threshold ranks them.

none   s
max    s / max of its group          mean   s / mean of its group
l2     s / L2 norm of its group      rank   (rank within its group + 1) / size of the group

fan-in    the layer scores / the number of weights of one filter in the layer

Stages: a * s + b, with one pair (a, b) per resolution, the finest first (LeGR, Chin et al. 2020).
We differ in: LeGR has one pair per layer.

Cost: s / cost^power, where the cost of an atom, relative to its mean over the dense network, is

    cost = (1 - blend) * macs / sum of macs + blend * params / sum of params
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..arrays import IntArray
from ..graph.channels import ChannelMap
from .layer_scores import NO_LAYER, LayerScores, Scores

TINY = np.finfo(np.float64).tiny


def fractional_ranks(scores: Scores) -> Scores:
    """Return ranks in (0, 1], the lowest score first; ties by index."""
    order = np.argsort(scores, kind="stable")
    result = np.empty(len(scores))
    result[order] = np.arange(1, len(scores) + 1) / len(scores)
    return result


GROUP_NORMALIZERS: dict[str, Callable[[Scores], Scores]] = {
    "none": lambda s: s,
    "max": lambda s: s / max(np.abs(s).max(), TINY),
    "mean": lambda s: s / max(np.abs(s).mean(), TINY),
    "l2": lambda s: s / max(float(np.linalg.norm(s)), TINY),
    "rank": fractional_ranks,
    "fan-in": lambda s: s,  # done by `divide_by_fan_in`, before layers are combined
}


def normalize_within_groups(scores: Scores, channel_map: ChannelMap, rule: str) -> Scores:
    """Apply one of `GROUP_NORMALIZERS` within each group."""
    result = np.empty_like(scores)
    for group in range(len(channel_map.groups)):
        atoms = np.flatnonzero(channel_map.group_of == group)
        result[atoms] = GROUP_NORMALIZERS[rule](scores[atoms])
    return result


def divide_by_fan_in(parts: LayerScores, channel_map: ChannelMap) -> LayerScores:
    """Divide each layer score by the number of weights of one filter in the layer."""
    sizes = [
        layer.params_per_pair * len(layer.in_atoms) // layer.conv_groups
        for layer in channel_map.layers
    ]
    weights = np.array([*sizes, 1])[np.where(parts.layer == NO_LAYER, -1, parts.layer)]
    return replace(parts, value=parts.value / np.maximum(weights, 1))


def stages_of_groups(channel_map: ChannelMap) -> IntArray:
    """Return the stage of each group [G]: the index of its resolution, the finest first."""
    positions = {
        layer.name: layer.macs_per_pair // max(layer.params_per_pair, 1)
        for layer in channel_map.layers
    }
    finest = [max(positions[name] for name in group.layers) for group in channel_map.groups]
    return np.unique(-np.array(finest, dtype=np.int64), return_inverse=True)[1]


def rescale_stages(scores: Scores, stage: IntArray, tables: Scores) -> Scores:
    """Return a * s + b for scores [B, A], the stage of each atom [A] and pairs [B, S, 2]."""
    factor, shift = (tables[..., part].take(stage, axis=1) for part in (0, 1))
    return np.asarray(factor * scores + shift)


def stage_coefficients(pairs: tuple[float, ...], stages: int) -> Scores:
    """Return the pair (a, b) of each stage [S, 2]; the last pair is repeated for later stages."""
    table = np.array(pairs).reshape(-1, 2)
    return np.asarray(table[np.minimum(np.arange(stages), len(table) - 1)])


def divide_by_cost(
    scores: Scores, marginal: Scores, *, power: float | Scores, blend: float | Scores
) -> Scores:
    """Divide scores by the marginal cost [A, 2] of each atom to a power.

    Scores are [A], or [B, A] with one power and blend [B] per row.
    """
    weights = cost_weights(marginal, blend)
    cost = weights[..., :1] * marginal[:, 0] + weights[..., 1:] * marginal[:, 1]
    return divide_keeping_order(scores, cost_scale(cost, np.asarray(power)[..., None]))


def cost_weights(dense: Scores, blend: float | Scores) -> Scores:
    """Return the weights [..., 2] of macs and params in the cost of an atom.

    With them, the mean cost of the atoms of the dense network, given [A, 2], is 1.
    """
    total = dense.sum(axis=0)
    shares = np.where(total > 0, 1 / np.maximum(total, 1), 0.0)
    weights = np.stack((1 - np.asarray(blend), np.asarray(blend)), axis=-1) * shares
    mean = (weights * dense.mean(axis=0)).sum(axis=-1, keepdims=True)
    return np.asarray(weights / np.maximum(mean, TINY))


def cost_scale(cost: Scores, power: Scores) -> Scores:
    """Return the divisor of scores, cost^power, with costs of at least 1e-12."""
    return np.asarray(np.maximum(cost, 1e-12) ** power)


def divide_keeping_order(scores: Scores, scale: Scores) -> Scores:
    """Divide scores by their scale; multiply negative scores, so that costly atoms rank lower."""
    if (scores >= 0).all():
        return scores / scale
    return np.where(scores < 0, scores * scale, scores / scale)
