"""Decode a policy: from evidence and a target to the mask of one trial."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .allocations.budget import Budget, Unreachable, fill_to_budget, order_units
from .allocations.loss_budget import loss_order, mask_under
from .bias import divide_by_fan_in, divide_by_price, normalise, rescale_stages
from .channels import ChannelMap
from .curves import Curves, curves_name
from .errors import UserError
from .evidence import Evidence
from .parts import combine
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

    def lowest(self) -> tuple[int, int]:
        """The (macs, params) of the smallest network that the limits allow."""
        scores = np.zeros(self.channel_map.atoms)
        units = order_units(scores, self.price, self.channel_map, self.min_channels, self.round_to)
        macs, params = self.price.of(units.of_atom < 0)
        return int(macs), int(params)


def decode(policy: Policy, target: Target, evidence: Evidence, space: Space) -> NDArray[np.bool_]:
    """The largest mask [A] of this policy whose price is not above the target.

    The policy's own floor gives way where it puts the target out of reach; the user's does not. A
    threshold of loss variation that is given takes away what it allows to, target met or not.
    """
    if policy.score not in evidence.scores:
        raise UserError(
            f"score must be one of {', '.join(evidence.scores)}, got {policy.score!r}; "
            "a score of your own comes with --plugin FILE"
        )
    order = order_of(policy, evidence, space)
    budget = Budget(*target.limits(space.price.dense))

    def fill(floor: int) -> NDArray[np.bool_]:
        price, channel_map = space.price, space.channel_map
        limits = {"floor": floor, "round_to": space.round_to}
        kept = fill_to_budget(order, price, channel_map, budget, **limits)
        if policy.allocation != "loss-budget" or policy.threshold is None:
            return kept
        curves = curves_of(policy, evidence)
        return kept & mask_under(policy, curves, price, channel_map, **limits)

    if policy.floor > space.min_channels:
        with suppress(Unreachable):
            return fill(policy.floor)
    return fill(space.min_channels)


def curves_of(policy: Policy, evidence: Evidence) -> Curves:
    """The loss curves that the policy reads."""
    name = curves_name(policy.score, policy.combine, policy.probe)
    if name not in evidence.curves:
        raise UserError(
            f"loss curves must be measured before allocation loss-budget, got none for {name!r}; "
            "pass the evidence of measure_curves"
        )
    return evidence.curves[name]


def order_of(policy: Policy, evidence: Evidence, space: Space) -> NDArray[np.float64]:
    """The scores that the threshold sees: bias removed, divided by price."""
    if policy.allocation == "loss-budget":
        return loss_order(policy, curves_of(policy, evidence), space.price, space.channel_map)
    channel_map, parts = space.channel_map, evidence.scores[policy.score]
    if policy.normalisation == "fan-in":
        parts = divide_by_fan_in(parts, channel_map)
    scores = combine(parts, channel_map, policy.combine)
    if policy.allocation == "uniform":
        return normalise(scores, channel_map, "rank")
    scores = normalise(scores, channel_map, policy.normalisation)
    scores = rescale_stages(scores, channel_map, policy.stages)
    marginal = space.price.marginal(np.ones(channel_map.atoms, bool))
    return divide_by_price(scores, marginal, power=policy.price_power, blend=policy.price_blend)
