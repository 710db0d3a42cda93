"""Scores by (layer, atom), and the rules that combine them into one score per atom.

sum    s_i = sum_l s_il         mean   s_i = mean_l s_il        max   s_i = max_l s_il
later  s_i = sum_l max(j, 1) / (J - 1) s_il,   j = 0..J-1 the index of l among the group's layers
       (Li et al. 2020: later blocks of a coupled stage weigh more)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..arrays import FloatArray, Int32Array
from ..graph.channels import ChannelMap

Scores = FloatArray  # [A]
NO_LAYER = -1  # layer of a value that belongs to the atom as a whole


@dataclass(frozen=True, slots=True, eq=False)
class LayerScores:
    """One value for each of P (layer, atom) pairs; `layer` indexes the layers of the map."""

    value: Scores  # [P]
    atom: Int32Array  # [P]
    layer: Int32Array  # [P]


def as_layer_scores(scores: Scores) -> LayerScores:
    """Wrap scores [A] that have no values by layer."""
    atoms = np.arange(len(scores), dtype=np.int32)
    return LayerScores(scores, atoms, np.full(len(scores), NO_LAYER, dtype=np.int32))


def _sum(parts: LayerScores, channel_map: ChannelMap) -> Scores:
    return np.bincount(parts.atom, parts.value, channel_map.atoms).astype(np.float64)


def _mean(parts: LayerScores, channel_map: ChannelMap) -> Scores:
    counts = np.bincount(parts.atom, minlength=channel_map.atoms)
    return _sum(parts, channel_map) / np.maximum(counts, 1)


def _max(parts: LayerScores, channel_map: ChannelMap) -> Scores:
    highest = np.full(channel_map.atoms, -np.inf)
    np.maximum.at(highest, parts.atom, parts.value)
    return np.where(np.isneginf(highest), 0.0, highest)


def _later_weighted(parts: LayerScores, channel_map: ChannelMap) -> Scores:
    weight = np.ones(len(parts.value))
    group_of_part = channel_map.group_of[parts.atom]
    for group in range(len(channel_map.groups)):
        own = (group_of_part == group) & (parts.layer != NO_LAYER)
        layers = np.unique(parts.layer[own])
        if len(layers) > 1:
            place = np.searchsorted(layers, parts.layer[own])
            weight[own] = np.maximum(place, 1) / (len(layers) - 1)
    return np.bincount(parts.atom, parts.value * weight, channel_map.atoms).astype(np.float64)


COMBINATION_RULES: dict[str, Callable[[LayerScores, ChannelMap], Scores]] = {
    "sum": _sum,
    "mean": _mean,
    "max": _max,
    "later": _later_weighted,
}


def combine_layers(parts: LayerScores, channel_map: ChannelMap, rule: str) -> Scores:
    """Return one score per atom [A], by one of `COMBINATION_RULES`."""
    return COMBINATION_RULES[rule](parts, channel_map)
