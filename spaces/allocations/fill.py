"""Masks within a budget from an order of removal: the prefix, then the fill.

All rows of a batch advance together. The prefix is a bisection over ranks. The fill then adds
back, in reverse order, each unit that still fits. Every added unit raises the cost, so a unit that
does not fit once never fits later:

- Removed atoms of one kind have the same cost, so each step compares only the last removed atom of
  each kind and adds back the latest that fits. There are as many steps as atoms added back.
- With rounded widths, if a unit does not fit, the rest of its group stays removed too, since its
  width would be no multiple. There are about as many steps as groups plus units added back.
"""

from __future__ import annotations

import numpy as np

from ..arrays import Int32Array, IntArray, Mask
from ..cost.atom_kinds import AtomKinds
from ..cost.cost import CostModel
from ..graph.channels import ChannelMap
from .units import Ranks


def fill_masks(
    rank: Ranks, channel_map: ChannelMap, cost_model: CostModel, limits: IntArray, *, single: bool
) -> tuple[Mask, Mask]:
    """Return the largest masks [B, A] within limits [B, 2], and which rows meet them [B].

    A row that cannot meet its limits gets the mask without any unit.

    Args:
        rank: Ranks of removal [B, A].
        channel_map: The channel map of the network.
        cost_model: The cost of masks.
        limits: The largest (macs, params) of each row [B, 2].
        single: Whether every unit is one atom.
    """
    masks = rank >= _prefix_ranks(rank, cost_model, limits)[:, None]
    slack = limits - cost_model.cost_of(masks)
    reachable = np.asarray((slack >= 0).all(axis=1))
    removed = np.where(masks | ~reachable[:, None], np.int32(-1), rank)
    if single:
        return masks | _add_atoms_back(removed, cost_model.atom_kinds, slack), reachable
    return _add_units_back(masks, removed, channel_map.group_of, cost_model, limits), reachable


def _prefix_ranks(rank: Ranks, cost_model: CostModel, limits: IntArray) -> IntArray:
    """Return the lowest rank [B] below which all atoms are removed to meet the limits; else A."""
    low = np.zeros(len(rank), dtype=np.int64)
    high = np.full(len(rank), rank.shape[1])
    while (low < high).any():
        middle = (low + high) // 2
        met = (cost_model.cost_of(rank >= middle[:, None]) <= limits).all(axis=1)
        high = np.where(met, middle, high)
        low = np.where(met | (low == high), low, middle + 1)
    return low


def _add_atoms_back(removed: Ranks, kinds: AtomKinds, slack: IntArray) -> Mask:
    """Return which atoms are added back [B, A], from the ranks of removed ones (kept: -1)."""
    ranks, last = _sort_by_kind(removed, kinds)
    gone = np.add.reduceat(ranks >= 0, last - kinds.size, axis=1, dtype=np.int64)
    cost, slack = kinds.cost_of_adding(kinds.size - gone), slack.T
    rows, at = np.arange(len(removed)), np.tile(last, (len(removed), 1))
    while True:
        fits = (cost <= slack[..., None]).all(axis=0)
        latest = np.where(fits, ranks[rows[:, None], at[rows]], -1)
        more = latest.max(axis=1, initial=-1) >= 0
        if not more.any():
            break
        rows, cost, slack = rows[more], cost[:, more], slack[:, more]
        kind, each = latest[more].argmax(axis=1), np.arange(len(rows))
        slack = slack - cost[:, each, kind]
        cost += kinds.change[:, kind]
        at[rows, kind] -= 1
    stays_out = np.take_along_axis(ranks, at, axis=1)
    return np.asarray(removed > stays_out[:, kinds.kind_of_atom])


def _sort_by_kind(removed: Ranks, kinds: AtomKinds) -> tuple[Ranks, IntArray]:
    """Return ranks sorted within each kind after a leading -1, and each kind's last column [C]."""
    column, ends = np.argsort(kinds.kind_of_atom, kind="stable"), np.cumsum(kinds.size)
    last = np.cumsum(kinds.size + 1) - 1
    ranks = np.full((len(removed), removed.shape[1] + len(last)), -1, dtype=np.int32)
    for size, end, after in zip(kinds.size, ends, last + 1, strict=True):
        own = removed[:, column[end - size : end]]
        ranks[:, after - size : after] = np.sort(own, axis=1)
    return ranks, last


def _add_units_back(
    masks: Mask, removed: Ranks, group_of: Int32Array, cost_model: CostModel, limits: IntArray
) -> Mask:
    """Return the masks [B, A] after the fill with units of several atoms of one rank."""
    latest = removed.max(axis=1, keepdims=True)
    while (latest >= 0).any():
        unit = (removed == latest) & (latest >= 0)
        fits = (cost_model.cost_of(masks | unit) <= limits).all(axis=1, keepdims=True)
        group = group_of[unit.argmax(axis=1), None]
        masks = masks | unit & fits
        removed = np.where(unit | (group_of == group) & ~fits, np.int32(-1), removed)
        latest = removed.max(axis=1, keepdims=True)
    return masks
