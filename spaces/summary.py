"""What `inspect` shows: a network's groups, what each is worth, what must stay and why."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .channels import ChannelMap, Protected
from .price import Price


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """One group. Shares are what would go if it went alone and whole; they may overlap."""

    name: str
    layers: tuple[str, ...]  # the layers coupled in it
    atoms: int
    macs_share: float  # of dense, in [0, 1]
    params_share: float


@dataclass(frozen=True, slots=True)
class Summary:
    """A whole network."""

    groups: tuple[GroupSummary, ...]
    protected: tuple[Protected, ...]
    atoms: int
    macs: int
    params: int
    lowest_macs: float  # the lowest reachable fractions, each alone
    lowest_params: float


def summarise(
    channel_map: ChannelMap, price: Price, *, lowest: tuple[int, int] | None = None
) -> Summary:
    """All that is to be said of a network without data."""
    dense = np.array(price.dense, dtype=np.int64)
    without = np.ones((len(channel_map.groups), channel_map.atoms), dtype=bool)
    without[channel_map.group_of, np.arange(channel_map.atoms)] = False
    shares = (dense - price.of(without)) / np.maximum(dense, 1)
    sizes = np.bincount(channel_map.group_of, minlength=len(channel_map.groups))
    groups = tuple(
        GroupSummary(group.name, group.layers, int(size), float(macs), float(params))
        for group, size, (macs, params) in zip(channel_map.groups, sizes, shares, strict=True)
    )
    least = np.array(lowest or price.lowest()) / np.maximum(dense, 1)
    return Summary(
        groups=groups,
        protected=channel_map.protected,
        atoms=channel_map.atoms,
        macs=int(dense[0]),
        params=int(dense[1]),
        lowest_macs=float(least[0]),
        lowest_params=float(least[1]),
    )
