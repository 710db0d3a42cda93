"""Discretise trained gates: flip a few of them so that both sizes reach their limits.

While a size is off, blocks of gates in up to two groups are flipped together (in three groups if
two do not help; large blocks if a size is still a full percent below its limit). The chosen flip
minimises

    sum_k (max(0, |cost_k / limit_k - GOAL| - TOLERANCE) + PENALTY [cost_k is above])^2

with exact costs; among equals, the flip with the smallest sum |v| of gate values. The result are
scores for the budget solver, which makes the mask fit the budget and fills what is left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ....spaces.cost.cost import CostModel
from ....spaces.graph.channels import ChannelMap

SIZE_GOAL, SIZE_TOLERANCE = 0.997, 0.003  # of the limits
FLIPPED_VALUE = 1e-6  # the absolute value of a flipped gate
OVERSHOOT_PENALTY = 0.03
BLOCK_SIZES = (1, 2, 3, 4, 6, 8, 12, 16)
LARGE_BLOCK_SIZES = (*range(1, 7), 8, 10, 12, 16, 20, *range(24, 129, 8))
LARGE_BLOCK_LOSS = 0.004**2  # large blocks are tried above this loss
# Block sizes; then for two and three groups: the number of flips and of single-group flips that
# are combined, each with the smallest cost.
FLIP_ATTEMPTS = (
    (BLOCK_SIZES, ((256, 256), (1024, 64))),
    (LARGE_BLOCK_SIZES, ((256, 256), (2048, 128))),
)

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class _Flips:
    """M candidate flips: their atoms, the change of the kept channels, and their cost."""

    atoms: list[NDArray[np.int64]]
    group: NDArray[np.int64]  # [M], the last group with a flipped atom
    change: NDArray[np.int64]  # [M, K]
    cost: Values  # [M]

    def combined_with(self, single: _Flips, counts: tuple[int, int]) -> _Flips:
        """These flips, and the cheapest ones combined with the cheapest flips of later groups."""
        mine, theirs = (
            np.argsort(flips.cost, kind="stable")[:count]
            for flips, count in zip((self, single), counts, strict=True)
        )
        one, other = np.nonzero(self.group[mine, None] < single.group[None, theirs])
        one, other = mine[one], theirs[other]
        pairs = zip(one, other, strict=True)
        return _Flips(
            self.atoms + [np.concatenate((self.atoms[i], single.atoms[j])) for i, j in pairs],
            np.concatenate((self.group, single.group[other])),
            np.concatenate((self.change, self.change[one] + single.change[other])),
            np.concatenate((self.cost, self.cost[one] + single.cost[other])),
        )


def discretize_gates(
    values: Values,
    opened: NDArray[np.bool_],
    cost_model: CostModel,
    channel_map: ChannelMap,
    limits: tuple[int | None, int | None],
    floor: int,
) -> Values:
    """Flip as few and as small gate values [A] as needed to bring the sizes to the limits.

    Args:
        values: The gate values [A].
        opened: The open gates, bool [A].
        cost_model: The cost model of `channel_map`.
        channel_map: The channel map of the network.
        limits: The largest (macs, params); None: no limit.
        floor: The least number of open gates per group.
    """
    columns = [k for k, limit in enumerate(limits) if limit is not None]
    targets = np.array([limits[k] for k in columns], dtype=np.float64)
    values = np.where(
        opened, np.maximum(values, FLIPPED_VALUE), np.minimum(values, -FLIPPED_VALUE)
    )

    def loss(kept: NDArray[np.int64]) -> Values:
        error = cost_model.cost_at_widths(kept)[:, columns] / targets - SIZE_GOAL
        excess = np.maximum(np.abs(error) - SIZE_TOLERANCE, 0)
        excess = np.where(error > SIZE_TOLERANCE, excess + OVERSHOOT_PENALTY, excess)
        return np.asarray((excess**2).sum(axis=1))

    def loss_after(kept: NDArray[np.int64], change: NDArray[np.int64]) -> Values:
        return loss(kept + change)

    while True:
        kept = cost_model.kept_widths((values > 0)[None])
        current_loss = float(loss(kept)[0])
        flipped = None
        for block_sizes, counts in FLIP_ATTEMPTS[: 1 + (current_loss > LARGE_BLOCK_LOSS)]:
            single = _single_group_flips(values, cost_model, channel_map, floor, block_sizes)
            if current_loss and flipped is None and single.atoms:
                flipped = _best_flip(single, counts, partial(loss_after, kept), current_loss)
        if flipped is None:
            return values
        values[flipped] = -FLIPPED_VALUE * np.sign(values[flipped])


def _best_flip(
    single: _Flips,
    counts: tuple[tuple[int, int], ...],
    loss: Callable[[NDArray[np.int64]], Values],
    current_loss: float,
) -> NDArray[np.int64] | None:
    """The atoms of the flip with the smallest loss, in few groups; None if no flip helps."""
    flips = single
    for pair_counts in counts:
        flips = flips.combined_with(single, pair_counts)
        losses = loss(flips.change)
        best = int(np.lexsort((flips.cost, losses))[0])
        if losses[best] < current_loss:
            return flips.atoms[best]
    return None


def _single_group_flips(
    values: Values,
    cost_model: CostModel,
    channel_map: ChannelMap,
    floor: int,
    block_sizes: tuple[int, ...],
) -> _Flips:
    """For every group: blocks of the open gates nearest to 0, and of the closed ones."""
    atoms, groups = [], []
    for group in range(len(channel_map.groups)):
        members = np.flatnonzero(channel_map.group_of == group)
        members = members[np.argsort(values[members], kind="stable")]
        closed = int((values[members] <= 0).sum())
        free = len(members) - closed - floor
        blocks = [members[closed : closed + n] for n in block_sizes if n <= free]
        blocks += [members[closed - n : closed] for n in block_sizes if n <= closed]
        atoms += blocks
        groups += [group] * len(blocks)
    sign = np.where(values > 0, -1, 1)
    change = [sign[block] @ cost_model.channels_by_atom[block] for block in atoms]
    cost = [float(np.abs(values[block]).sum()) for block in atoms]
    shape = (len(atoms), cost_model.channels_by_atom.shape[1])
    return _Flips(atoms, np.array(groups), np.array(change).reshape(shape), np.array(cost))
