"""The last few atoms: from where training left the gates to both sizes that were asked for.

While a size is off, the gate is turned whose turning costs least, |v_i|, for what it mends: the
fall of sum_k (price_k / limit_k - aim)^2, exact for one atom. What comes out are values for the
common solver, which makes the mask fit the budget and leaves no atom out that still fits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...spaces.channels import ChannelMap
from ...spaces.price import Price

AIM, SLACK = 0.997, 0.003  # the sizes end within aim +- slack of their limits, or close by
TURNED = 1e-6  # the value of a gate that was turned

Values = NDArray[np.float64]


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
    while True:
        opened = values > 0
        error = price.of(opened)[given] / wished - AIM
        if (np.abs(error) <= SLACK).all():
            return values
        change = price.marginal(opened)[:, given] / wished
        after = error + np.where(opened[:, None], -change, change)
        gain = (error**2).sum() - (after**2).sum(axis=1)
        gain[opened & (_open_in_group(opened, channel_map) <= floor)] = 0
        if not (gain > 0).any():
            return values
        mends = np.flatnonzero(gain > 0)
        best = mends[np.argmin(np.abs(values[mends]) / gain[mends])]
        values[best] = -TURNED if opened[best] else TURNED


def _open_in_group(opened: NDArray[np.bool_], channel_map: ChannelMap) -> NDArray[np.int64]:
    """For every atom, how many of its group are open."""
    counts = np.bincount(channel_map.group_of[opened], minlength=len(channel_map.groups))
    found: NDArray[np.int64] = counts[channel_map.group_of]
    return found
