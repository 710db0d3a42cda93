"""Kinds of atoms: those of one group that own equally many channels of every side of a layer.

Their marginal prices are equal and move together, so all prices of a mask are known from how many
atoms of each kind it keeps:

    price_c(n) = first_c + sum_k change_ck * n_k        what one more atom of kind c costs

n_k = kept atoms of kind k, first_c = the price of an atom in the network that keeps none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Kinds:
    """The kinds of one channel map, numbered group by group: `[2, ...]` is macs, then params."""

    of_atom: Counts  # [A]
    size: Counts  # [C], atoms of each kind
    first: Counts  # [2, C]
    change: Counts  # [2, C, C], symmetric

    def returns(self, kept: Counts) -> Counts:
        """What one more atom of each kind costs beside so many kept ones [B, C]: [2, B, C]."""
        return np.asarray(self.first[:, None] + kept @ self.change)

    def savings(self, kept: Counts) -> Counts:
        """What one atom less of each kind saves: [2, B, C]."""
        own = np.diagonal(self.change, axis1=1, axis2=2)
        return self.returns(kept) - own[:, None]
