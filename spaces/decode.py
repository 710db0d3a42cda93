"""Decode a policy: from evidence and a target to the mask of one trial."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .allocations.budget import Budget, fill_to_budget
from .bias import divide_by_price, normalise
from .channels import ChannelMap
from .errors import UserError
from .evidence import Evidence
from .policy import Policy
from .price import Price
from .target import Target


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """What can be removed from one network, what it costs, and the user's limits on it."""

    channel_map: ChannelMap
    price: Price
    min_channels: int = 1
    round_to: int = 1


def decode(policy: Policy, target: Target, evidence: Evidence, space: Space) -> NDArray[np.bool_]:
    """The largest mask [A] of this policy whose price is not above the target."""
    if policy.score not in evidence.scores:
        raise UserError(
            f"score must be one of {', '.join(evidence.scores)}, got {policy.score!r}; "
            "a score of your own comes with --plugin FILE"
        )
    return fill_to_budget(
        order_of(policy, evidence, space),
        space.price,
        space.channel_map,
        Budget(*target.limits(space.price.dense)),
        floor=max(policy.floor, space.min_channels),
        round_to=space.round_to,
    )


def order_of(policy: Policy, evidence: Evidence, space: Space) -> NDArray[np.float64]:
    """The scores that the threshold sees: bias removed, divided by price."""
    scores = evidence.scores[policy.score]
    if policy.allocation == "uniform":
        return normalise(scores, space.channel_map, "rank")
    scores = normalise(scores, space.channel_map, policy.normalisation)
    marginal = space.price.marginal(np.ones(space.channel_map.atoms, bool))
    return divide_by_price(scores, marginal, power=policy.price_power, blend=policy.price_blend)
