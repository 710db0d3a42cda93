"""Fisher information of the atom's gate: the squared Taylor term (Theis et al. 2018; Liu et al.
2021, "Group Fisher Pruning").

s_i = sum over samples n of (dL_n / dm_i)^2,   m_i = a gate of 1 on atom i

The gate covers all consumers of the atom, so coupled layers are summed before squaring.

We differ in: no factor 1 / 2N, which does not change the order; the cost is not part of the score
but a choice of the policy.
"""

from __future__ import annotations

from ....spaces.policy.layer_scores import Scores
from ..batch_view import Seen
from ..registry import batch_score


@batch_score("fisher", "gates")
def fisher(seen: Seen) -> Scores:
    """Sum over images of (dL/dgate)^2."""
    return seen.per_gate(lambda gradients: gradients.square().sum(0))
