"""From an order of removal to the mask within a budget: the prefix, then the fill.

All rows of a batch take each step together. The prefix is a bisection over ranks. Then, in reverse
order, each unit that still fits is added back. The price rises with every unit, so one that does
not fit once never fits later:

- removed atoms of one kind cost the same, so a row only looks at the last removed of each kind and
  takes the latest that fits: as many steps as atoms come back;
- with rounded widths, if a unit does not fit, the rest of its group stays out too, else its width
  would be no multiple: about as many steps as groups, and units that come back.
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
    """The maximal masks [B, A] of ranks [B, A] within limits [B, 2], and which rows meet them.

    `single`: units are atoms. A row out of reach gets the mask without all units.
    """
    masks = rank >= _prefix_ranks(rank, cost_model, limits)[:, None]
    slack = limits - cost_model.cost_of(masks)
    reachable = np.asarray((slack >= 0).all(axis=1))
    removed = np.where(masks | ~reachable[:, None], np.int32(-1), rank)
    if single:
        return masks | _add_atoms_back(removed, cost_model.atom_kinds, slack), reachable
    return _add_units_back(masks, removed, channel_map.group_of, cost_model, limits), reachable


def _prefix_ranks(rank: Ranks, cost_model: CostModel, limits: IntArray) -> IntArray:
    """The lowest rank [B] below which all must go until the limits are met; else A."""
    low = np.zeros(len(rank), dtype=np.int64)
    high = np.full(len(rank), rank.shape[1])
    while (low < high).any():
        middle = (low + high) // 2
        met = (cost_model.cost_of(rank >= middle[:, None]) <= limits).all(axis=1)
        high = np.where(met, middle, high)
        low = np.where(met | (low == high), low, middle + 1)
    return low


def _add_atoms_back(removed: Ranks, kinds: AtomKinds, slack: IntArray) -> Mask:
    """Which atoms are added back [B, A], given the ranks of the removed ones (kept: -1)."""
    waiting, last = _sort_by_kind(removed, kinds)
    gone = np.add.reduceat(waiting >= 0, last - kinds.size, axis=1, dtype=np.int64)
    cost, slack = kinds.cost_of_adding(kinds.size - gone), slack.T
    rows, at = np.arange(len(removed)), np.tile(last, (len(removed), 1))
    while True:
        fits = (cost <= slack[..., None]).all(axis=0)
        latest = np.where(fits, waiting[rows[:, None], at[rows]], -1)
        more = latest.max(axis=1, initial=-1) >= 0
        if not more.any():
            break
        rows, cost, slack = rows[more], cost[:, more], slack[:, more]
        kind, each = latest[more].argmax(axis=1), np.arange(len(rows))
        slack = slack - cost[:, each, kind]
        cost += kinds.change[:, kind]
        at[rows, kind] -= 1
    stays_out = np.take_along_axis(waiting, at, axis=1)
    return np.asarray(removed > stays_out[:, kinds.kind_of_atom])


def _sort_by_kind(removed: Ranks, kinds: AtomKinds) -> tuple[Ranks, IntArray]:
    """The ranks sorted within each kind, behind a -1 each; and the last column of each [C]."""
    column, ends = np.argsort(kinds.kind_of_atom, kind="stable"), np.cumsum(kinds.size)
    last = np.cumsum(kinds.size + 1) - 1
    waiting = np.full((len(removed), removed.shape[1] + len(last)), -1, dtype=np.int32)
    for size, end, after in zip(kinds.size, ends, last + 1, strict=True):
        own = removed[:, column[end - size : end]]
        waiting[:, after - size : after] = np.sort(own, axis=1)
    return waiting, last


def _add_units_back(
    masks: Mask, removed: Ranks, group_of: Int32Array, cost_model: CostModel, limits: IntArray
) -> Mask:
    """The masks [B, A] after the fill with units of several atoms, which have one rank."""
    latest = removed.max(axis=1, keepdims=True)
    while (latest >= 0).any():
        unit = (removed == latest) & (latest >= 0)
        fits = (cost_model.cost_of(masks | unit) <= limits).all(axis=1, keepdims=True)
        group = group_of[unit.argmax(axis=1), None]
        masks = masks | unit & fits
        removed = np.where(unit | (group_of == group) & ~fits, np.int32(-1), removed)
        latest = removed.max(axis=1, keepdims=True)
    return masks
