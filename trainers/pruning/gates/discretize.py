"""The last few atoms: from where training left the gates to both sizes that were asked for.

While a size is off, blocks of gates of up to two groups (three where two do not help, large ones
where those leave a whole per cent) are turned at once: those that leave least of

    sum_k (|price_k / limit_k - AIM| - SLACK)^2,    exact, OVER added for a size above its limit

and of those that leave nothing, the ones whose turning costs least, sum |v|. What comes out are
values for the common solver, which makes the mask fit the budget if it does not yet, and leaves
out no atom that still fits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ....spaces.cost.cost import CostModel
from ....spaces.graph.channels import ChannelMap

SIZE_GOAL, SIZE_TOLERANCE = (
    0.997,
    0.003,
)  # the sizes end within AIM +- SLACK of their limits, or close by
FLIPPED_VALUE = 1e-6  # the value of a gate that was turned
OVERSHOOT_PENALTY = 0.03
BLOCK_SIZES = (1, 2, 3, 4, 6, 8, 12, 16)
LARGE_BLOCK_SIZES = (*range(1, 7), 8, 10, 12, 16, 20, *range(24, 129, 8))
LARGE_BLOCK_LOSS = (
    0.004**2
)  # of a loss: a size is a whole per cent off, which is worth large blocks
# Blocks, and of two and three groups: cheapest moves, cheapest single blocks that join them.
FLIP_ATTEMPTS = (
    (BLOCK_SIZES, ((256, 256), (1024, 64))),
    (LARGE_BLOCK_SIZES, ((256, 256), (2048, 128))),
)

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class _Flips:
    """What may be turned at once: which atoms, how kept channels change, what it costs."""

    atoms: list[NDArray[np.int64]]
    group: NDArray[np.int64]  # [M], the last one that is touched
    change: NDArray[np.int64]  # [M, K]
    cost: Values  # [M]

    def combined_with(self, single: _Flips, most: tuple[int, int]) -> _Flips:
        """These, and the cheapest of them together with the cheapest blocks of later groups."""
        mine, theirs = (
            np.argsort(moves.cost, kind="stable")[:count]
            for moves, count in zip((self, single), most, strict=True)
        )
        one, other = np.nonzero(self.group[mine, None] < single.group[None, theirs])
        one, other = mine[one], theirs[other]
        both = zip(one, other, strict=True)
        return _Flips(
            self.atoms + [np.concatenate((self.atoms[i], single.atoms[j])) for i, j in both],
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
    """The values [A] with as few and as small ones turned as bring the sizes to the limits."""
    given = [k for k, limit in enumerate(limits) if limit is not None]
    wished = np.array([limits[k] for k in given], dtype=np.float64)
    values = np.where(
        opened, np.maximum(values, FLIPPED_VALUE), np.minimum(values, -FLIPPED_VALUE)
    )

    def loss(kept: NDArray[np.int64]) -> Values:
        off = cost_model.cost_at_widths(kept)[:, given] / wished - SIZE_GOAL
        left = np.maximum(np.abs(off) - SIZE_TOLERANCE, 0)
        left = np.where(off > SIZE_TOLERANCE, left + OVERSHOOT_PENALTY, left)
        return np.asarray((left**2).sum(axis=1))

    def changed(kept: NDArray[np.int64], change: NDArray[np.int64]) -> Values:
        return loss(kept + change)

    while True:
        kept = cost_model.kept_widths((values > 0)[None])
        here = float(loss(kept)[0])
        turned = None
        for blocks, joined in FLIP_ATTEMPTS[: 1 + (here > LARGE_BLOCK_LOSS)]:
            single = _single_group_flips(values, cost_model, channel_map, floor, blocks)
            if here and turned is None and single.atoms:
                turned = _best_flip(single, joined, partial(changed, kept), here)
        if turned is None:
            return values
        values[turned] = -FLIPPED_VALUE * np.sign(values[turned])


def _best_flip(
    single: _Flips,
    joined: tuple[tuple[int, int], ...],
    loss: Callable[[NDArray[np.int64]], Values],
    here: float,
) -> NDArray[np.int64] | None:
    """The atoms whose turning leaves least, of as few groups as it takes; None if none helps."""
    moves = single
    for most in joined:
        moves = moves.combined_with(single, most)
        after = loss(moves.change)
        best = int(np.lexsort((moves.cost, after))[0])
        if after[best] < here:
            return moves.atoms[best]
    return None


def _single_group_flips(
    values: Values,
    cost_model: CostModel,
    channel_map: ChannelMap,
    floor: int,
    blocks: tuple[int, ...],
) -> _Flips:
    """Of every group the open gates nearest to closing, as far as they may, and vice versa."""
    atoms, groups = [], []
    for group in range(len(channel_map.groups)):
        members = np.flatnonzero(channel_map.group_of == group)
        members = members[np.argsort(values[members], kind="stable")]
        closed = int((values[members] <= 0).sum())
        free = len(members) - closed - floor
        found = [members[closed : closed + n] for n in blocks if n <= free]
        found += [members[closed - n : closed] for n in blocks if n <= closed]
        atoms += found
        groups += [group] * len(found)
    sign = np.where(values > 0, -1, 1)
    change = [sign[block] @ cost_model.channels_by_atom[block] for block in atoms]
    cost = [float(np.abs(values[block]).sum()) for block in atoms]
    shape = (len(atoms), cost_model.channels_by_atom.shape[1])
    return _Flips(atoms, np.array(groups), np.array(change).reshape(shape), np.array(cost))
