"""The last few atoms: from where training left the gates to both sizes that were asked for.

While a size is off, a block of gates of one group is turned, or where no block helps, blocks of
two groups at once: of all those that mend something the ones whose turning costs least, sum |v_i|,
for what it mends, the exact fall of sum_k (price_k / limit_k - AIM)^2. What comes out are values
for the common solver, which makes the mask fit the budget and leaves out no atom that still fits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...spaces.channels import ChannelMap
from ...spaces.price import Price

AIM, SLACK = 0.997, 0.003  # the sizes end within AIM +- SLACK of their limits, or close by
TURNED = 1e-6  # the value of a gate that was turned
BLOCKS = (1, 2, 4, 8)
LEAST_GAIN = 1e-9

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class _Moves:
    """What may be turned at once: which atoms, how kept channels change, what it costs."""

    atoms: list[NDArray[np.int64]]
    group: NDArray[np.int64]  # [M]
    change: NDArray[np.int64]  # [M, K]
    cost: Values  # [M]

    def pairs(self) -> _Moves:
        """Every two moves of different groups."""
        one, other = np.nonzero(self.group[:, None] < self.group[None])
        both = zip(one, other, strict=True)
        return _Moves(
            [np.concatenate((self.atoms[i], self.atoms[j])) for i, j in both],
            self.group[one],
            self.change[one] + self.change[other],
            self.cost[one] + self.cost[other],
        )


def settle(
    values: Values,
    opened: NDArray[np.bool_],
    price: Price,
    channel_map: ChannelMap,
    limits: tuple[int | None, int | None],
    floor: int,
) -> Values:
    """The values [A] with as few and as small ones turned as bring the sizes to the limits."""
    given = [k for k, limit in enumerate(limits) if limit is not None]
    wished = np.array([limits[k] for k in given], dtype=np.float64)
    values = np.where(opened, np.maximum(values, TURNED), np.minimum(values, -TURNED))

    def error(kept: NDArray[np.int64]) -> Values:
        return np.asarray(price.at(kept)[:, given] / wished - AIM)

    while True:
        kept = price.kept((values > 0)[None])
        here = error(kept)
        if (np.abs(here) <= SLACK).all():
            return values
        moves = _single(values, price, channel_map, floor)
        for pairs in (False, True):
            moves = moves.pairs() if pairs else moves
            gain = (here**2).sum() - (error(kept + moves.change) ** 2).sum(axis=1)
            if (gain > LEAST_GAIN).any():
                break
        else:
            return values
        worth = np.where(gain > LEAST_GAIN, gain, np.nan)
        turned = moves.atoms[int(np.nanargmin(moves.cost / worth))]
        values[turned] = -TURNED * np.sign(values[turned])


def _single(values: Values, price: Price, channel_map: ChannelMap, floor: int) -> _Moves:
    """Of every group the open gates nearest to closing, as far as they may, and vice versa."""
    atoms, groups = [], []
    for group in range(len(channel_map.groups)):
        members = np.flatnonzero(channel_map.group_of == group)
        members = members[np.argsort(values[members], kind="stable")]
        closed = int((values[members] <= 0).sum())
        free = len(members) - closed - floor
        found = [members[closed : closed + n] for n in BLOCKS if n <= free]
        found += [members[closed - n : closed] for n in BLOCKS if n <= closed]
        atoms += found
        groups += [group] * len(found)
    sign = np.where(values > 0, -1, 1)
    change = [sign[block] @ price.rows[block] for block in atoms]
    cost = [float(np.abs(values[block]).sum()) for block in atoms]
    shape = (len(atoms), price.rows.shape[1])
    return _Moves(atoms, np.array(groups), np.array(change).reshape(shape), np.array(cost))
