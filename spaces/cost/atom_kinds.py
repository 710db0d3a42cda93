"""Kinds of atoms: atoms of one group that own the same number of channels of every layer side.

Atoms of one kind always have the same marginal cost, so the number of kept atoms of each kind
determines all marginal costs:

    cost_c(n) = first_c + sum_k change_ck * n_k        cost of one more atom of kind c

n_k = kept atoms of kind k, first_c = cost of the first atom in a network that keeps none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays import IntArray


@dataclass(frozen=True, slots=True, eq=False)
class AtomKinds:
    """The C kinds of one channel map, numbered group by group; `[2, ...]` is macs, then params."""

    kind_of_atom: IntArray  # [A]
    size: IntArray  # [C], number of atoms of each kind
    first: IntArray  # [2, C]
    change: IntArray  # [2, C, C], symmetric

    def cost_of_adding(self, kept: IntArray) -> IntArray:
        """Return the cost [2, B, C] of one more atom of each kind, given the kept ones [B, C]."""
        return np.asarray(self.first[:, None] + kept @ self.change)

    def savings_of_removing(self, kept: IntArray) -> IntArray:
        """Return what removing one atom of each kind saves [2, B, C], given the kept [B, C]."""
        own = np.diagonal(self.change, axis1=1, axis2=2)
        return self.cost_of_adding(kept) - own[:, None]
