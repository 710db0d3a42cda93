"""First-order Taylor expansion of the loss in the atom's gate (Molchanov et al. 2017, 2019).

s_i = sum over samples n of | dL_n / dm_i |,   m_i = a gate of 1 on atom i

By the chain rule dL/dm_i is the sum of gradient x activation over all positions and consumers of
the atom, so coupled layers are counted once, together.

We differ in: per-sample gates give the derivative of each sample in one backward pass; the network
is in eval mode.
"""

from __future__ import annotations

from ....spaces.policy.layer_scores import Scores
from ..batch_view import Seen
from ..registry import batch_score


@batch_score("taylor", "gates")
def taylor(seen: Seen) -> Scores:
    """Sum over images of |dL/dgate|."""
    return seen.per_gate(lambda gradients: gradients.abs().sum(0))
