"""The summary that `inspect` prints: groups with their costs, and protected channels."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from ..graph.channels import ChannelMap, Layer, ProtectedChannels
from .cost import CostModel


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """One group; its shares are the cost that removing all of it saves. Shares may overlap."""

    name: str
    layers: tuple[str, ...]  # layers whose channels are coupled
    atoms: int
    macs_share: float  # of the dense network, in [0, 1]
    params_share: float


@dataclass(frozen=True, slots=True)
class Cause:
    """Why channels of some layers are protected, with their share of the dense MACs."""

    reason: str
    layers: tuple[str, ...]
    macs_share: float
    unread: bool  # the module is not in the channel map: its use of weights is unknown


@dataclass(frozen=True, slots=True)
class NetworkSummary:
    """The summary of a network."""

    groups: tuple[GroupSummary, ...]
    protected: tuple[ProtectedChannels, ...]
    atoms: int
    macs: int
    params: int
    lowest_macs: float  # lowest reachable fractions, each alone
    lowest_params: float
    causes: tuple[Cause, ...] = ()  # largest share first


def summarize_network(
    channel_map: ChannelMap, cost_model: CostModel, *, lowest: tuple[int, int] | None = None
) -> NetworkSummary:
    """Summarize a network without data; `lowest` overrides the lowest reachable cost."""
    dense = np.array(cost_model.dense, dtype=np.int64)
    without = np.ones((len(channel_map.groups), channel_map.atoms), dtype=bool)
    without[channel_map.group_of, np.arange(channel_map.atoms)] = False
    shares = (dense - cost_model.cost_of(without)) / np.maximum(dense, 1)
    sizes = np.bincount(channel_map.group_of, minlength=len(channel_map.groups))
    groups = tuple(
        GroupSummary(group.name, group.layers, int(size), float(macs), float(params))
        for group, size, (macs, params) in zip(channel_map.groups, sizes, shares, strict=True)
    )
    least = np.array(lowest or cost_model.min_cost()) / np.maximum(dense, 1)
    return NetworkSummary(
        groups=groups,
        protected=channel_map.protected,
        atoms=channel_map.atoms,
        macs=int(dense[0]),
        params=int(dense[1]),
        lowest_macs=float(least[0]),
        lowest_params=float(least[1]),
        causes=causes_of(channel_map, int(dense[0])),
    )


def causes_of(channel_map: ChannelMap, macs: int) -> tuple[Cause, ...]:
    """Group protected layers by reason, the largest share of `macs` first."""
    layers = {layer.name: layer for layer in channel_map.layers}
    found: dict[tuple[str, bool], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for kept in channel_map.protected:
        layer = layers[kept.layer]
        reason = re.sub(r" in [^()]*\)$", ")", kept.reason)  # drop the module, keep the operation
        found[reason, False][layer.name] += _macs(layer) * kept.channels / len(layer.out_atoms)
    for one in channel_map.unread:
        found[one.reason, True][one.module] += one.macs
    causes = [
        Cause(reason, tuple(own), sum(own.values()) / max(macs, 1), unread)
        for (reason, unread), own in found.items()
    ]
    return tuple(sorted(causes, key=lambda cause: -cause.macs_share))


def _macs(layer: Layer) -> int:
    pairs = len(layer.out_atoms) * len(layer.in_atoms) // layer.conv_groups
    return layer.macs_per_pair * pairs
