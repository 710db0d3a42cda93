"""Kinds of atoms: those of one group that own equally many channels of every side of a layer.

Their marginal prices are equal and move together, so all prices of a mask are known from how many
atoms of each kind it keeps:

    price_c(n) = first_c + sum_k change_ck * n_k        what one more atom of kind c costs

n_k = kept atoms of kind k, first_c = the price of an atom in the network that keeps none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays import IntArray


@dataclass(frozen=True, slots=True, eq=False)
class AtomKinds:
    """The kinds of one channel map, numbered group by group: `[2, ...]` is macs, then params."""

    kind_of_atom: IntArray  # [A]
    size: IntArray  # [C], atoms of each kind
    first: IntArray  # [2, C]
    change: IntArray  # [2, C, C], symmetric

    def cost_of_adding(self, kept: IntArray) -> IntArray:
        """What one more atom of each kind costs beside so many kept ones [B, C]: [2, B, C]."""
        return np.asarray(self.first[:, None] + kept @ self.change)

    def savings_of_removing(self, kept: IntArray) -> IntArray:
        """What one atom less of each kind saves: [2, B, C]."""
        own = np.diagonal(self.change, axis1=1, axis2=2)
        return self.cost_of_adding(kept) - own[:, None]
