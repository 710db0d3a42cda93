"""Units: sets of atoms that are removed and added back together, and their order by score.

A unit is one atom or, with `round_to`, the atoms between two allowed widths of a group: multiples
of `round_to` in each of its layers, or dense. The atoms of a group are removed from the lowest
score up. *Slots* number the atoms group by group, sorted by score within each group, so units are
the same ranges of slots for every score.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import gcd, lcm

import numpy as np

from ..arrays import FloatArray, Int32Array, IntArray
from ..graph.channels import ChannelMap

Ranks = Int32Array  # [B, A], position of each atom in the order of removal; A if kept


@dataclass(frozen=True, slots=True, eq=False)
class RemovalUnits:
    """The U units of one network and one floor, group by group, in the order of removal."""

    bounds: IntArray  # [G + 1], slots where groups begin and end
    start: IntArray  # [U], first slot
    size: IntArray  # [U], number of atoms
    group: IntArray  # [U]
    unit_of_slot: IntArray  # [A], U for slots that are never removed

    @property
    def are_single_atoms(self) -> bool:
        """Whether each unit is one atom."""
        return bool((self.size == 1).all())

    def atoms_by_slot(self, scores: FloatArray) -> IntArray:
        """Return the atom in each slot [B, A]; of equal scores, the lower index first."""
        atoms = np.empty(scores.shape, dtype=np.int64)
        for start, end in pairwise(self.bounds.tolist()):
            atoms[:, start:end] = start + stable_argsort(scores[:, start:end])
        return atoms

    def unit_scores(self, scores: FloatArray, atoms: IntArray) -> FloatArray:
        """Return the mean score of each unit [B, U], non-decreasing within a group."""
        ordered = np.take_along_axis(scores, atoms, axis=1)
        if self.are_single_atoms:
            return ordered[:, self.start]
        edges = np.stack((self.start, self.start + self.size), axis=1).reshape(-1)
        means = np.add.reduceat(ordered, edges, axis=1)[:, ::2] / self.size
        first = np.searchsorted(self.group, np.arange(len(self.bounds)))
        for start, end in pairwise(first.tolist()):  # rounding must not reverse a group's order
            np.maximum.accumulate(means[:, start:end], axis=1, out=means[:, start:end])
        return np.asarray(means)


def build_units(channel_map: ChannelMap, floor: int, round_to: int) -> RemovalUnits:
    """Return the units if every group keeps at least `floor` atoms."""
    bounds = np.searchsorted(channel_map.group_of, np.arange(len(channel_map.groups) + 1))
    start, size, group = [], [], []
    for index, (first, end) in enumerate(pairwise(bounds.tolist())):
        step = width_step(channel_map, index, round_to)
        lowest = -(-floor // step) * step
        widths = [end - first, *range((end - first - 1) // step * step, lowest - 1, -step)]
        start += [end - width for width in widths[:-1]]
        size += [wide - narrow for wide, narrow in pairwise(widths)]
        group += [index] * (len(widths) - 1)
    starts, sizes = np.array(start, dtype=np.int64), np.array(size, dtype=np.int64)
    of_slot = np.full(channel_map.atoms, len(starts), dtype=np.int64)
    own = np.repeat(np.arange(len(starts)), sizes)
    within = np.arange(len(own)) - np.repeat(sizes.cumsum() - sizes, sizes)
    of_slot[starts[own] + within] = own
    return RemovalUnits(bounds, starts, sizes, np.array(group, dtype=np.int64), of_slot)


def width_step(channel_map: ChannelMap, group: int, round_to: int) -> int:
    """Return how many atoms of a group change every layer's width by a multiple of `round_to`."""
    if round_to == 1:
        return 1
    own = channel_map.group_of == group
    producers = set(channel_map.groups[group].layers)
    step = 1
    for layer in channel_map.layers:
        if layer.name in producers:
            atoms = layer.out_atoms[layer.out_atoms >= 0]
            channels = np.bincount(atoms, minlength=channel_map.atoms)[own]
            same = int(channels[0]) if (channels == channels[0]).all() else 1
            step = lcm(step, round_to // gcd(round_to, same))
    return step


def rank_by_score(scores: FloatArray, units: RemovalUnits) -> Ranks:
    """Return ranks by (score of the unit, index), lowest first, for scores [B, A]."""
    finite = np.clip(scores, -1e300, 1e300)  # so that means stay finite
    atoms = units.atoms_by_slot(finite)
    order = stable_argsort(units.unit_scores(finite, atoms))
    place = np.full((len(scores), len(units.start) + 1), scores.shape[1], dtype=np.int32)
    np.put_along_axis(place, order, np.arange(order.shape[1], dtype=np.int32)[None], axis=1)
    return ranks_by_atom(place[:, units.unit_of_slot], atoms)


def stable_argsort(values: FloatArray) -> IntArray:
    """Sort each row stably; the slower stable sort runs only for rows with ties."""
    order = values.argsort(axis=1)
    ordered = np.take_along_axis(values, order, axis=1)
    tied = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
    if tied.any():
        order[tied] = values[tied].argsort(axis=1, kind="stable")
    return order


def ranks_by_atom(rank_of_slot: Ranks, atoms: IntArray) -> Ranks:
    """Convert ranks of slots [B, A] to ranks of atoms."""
    rank = np.empty_like(rank_of_slot)
    np.put_along_axis(rank, atoms, rank_of_slot, axis=1)
    return rank
