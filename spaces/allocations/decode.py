"""Decode policies: from evidence and a target to the mask of each trial."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..cost.cost import Price
from ..cost.target import Target
from ..graph.channels import ChannelMap
from ..policy.layer_scores import Scores
from ..policy.measurements import Evidence
from ..policy.policy import Policy
from .budget import Budget, check_limits, check_scores, unreachable
from .current_cost import Division, rank_at_present
from .fill import fill
from .loss_budget import curves_of, mask_under
from .ordering import Ordering
from .units import rank_by_score, units_of

ROWS = 512  # policies decoded together


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """What can be removed from one network, what it costs, and the user's limits on it."""

    channel_map: ChannelMap
    price: Price
    min_channels: int = 1
    round_to: int = 1

    def lowest(self) -> tuple[int, int]:
        """The (macs, params) of the smallest network that the limits allow."""
        units = units_of(self.channel_map, self.min_channels, self.round_to)
        macs, params = self.price.of(units.of_slot == len(units.start))
        return int(macs), int(params)


def decode(policy: Policy, target: Target, evidence: Evidence, space: Space) -> NDArray[np.bool_]:
    """The largest mask [A] of this policy whose price is not above the target.

    The policy's own floor gives way where it puts the target out of reach; the user's does not.
    """
    (mask,), reachable = decode_many([policy], [target], evidence, space)
    if not reachable.all():
        raise unreachable(
            space.price,
            space.channel_map,
            mask,
            Budget(*target.limits(space.price.dense)),
            floor=space.min_channels,
            round_to=space.round_to,
        )
    return np.asarray(mask)


def decode_many(
    policies: Sequence[Policy], targets: Sequence[Target], evidence: Evidence, space: Space
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The masks [B, A] of many policies, each at its own target, and which reach it [B].

    A row out of reach holds the smallest mask that the user's limits allow. A given threshold of
    loss variation takes away all that it allows to, also where the target was met before.
    """
    check_limits(space.min_channels, space.round_to)
    ordering = Ordering(evidence, space.channel_map, space.price)
    dense = space.price.dense
    limits = np.array([Budget(*t.limits(dense)).limits for t in targets]).reshape(-1, 2)
    masks = np.ones((len(policies), space.channel_map.atoms), dtype=bool)
    reachable = np.zeros(len(policies), dtype=bool)
    waiting = [(row, max(p.floor, space.min_channels)) for row, p in enumerate(policies)]
    while waiting:
        for rows, floor in _alike(policies, waiting):
            batch = [policies[row] for row in rows]
            masks[rows], reachable[rows] = _decode_alike(
                batch, floor, ordering.scores(batch), limits[rows], space
            )
            for row in (row for row in rows if policies[row].caps_loss):
                curves = curves_of(policies[row], evidence.curves)
                masks[row] &= mask_under(
                    policies[row],
                    curves,
                    space.price,
                    space.channel_map,
                    floor=floor,
                    round_to=space.round_to,
                )
        waiting = [
            (row, space.min_channels)
            for row, floor in waiting
            if floor > space.min_channels and not reachable[row]
        ]
    return masks, reachable


def _alike(
    policies: Sequence[Policy], waiting: list[tuple[int, int]]
) -> Iterator[tuple[list[int], int]]:
    """Rows that can be decoded together, and their floor; no more than stay in the cache."""
    found: dict[tuple[bool, int], list[int]] = {}
    for row, floor in waiting:
        found.setdefault((_at_present(policies[row]), floor), []).append(row)
    for (_, floor), rows in found.items():
        for start in range(0, len(rows), ROWS):
            yield rows[start : start + ROWS], floor


def _at_present(policy: Policy) -> bool:
    """Its order depends on the price of the present mask."""
    priced = policy.price_power > 0 and policy.allocation == "global-threshold"
    return priced and policy.price_at == "present"


def _decode_alike(
    policies: list[Policy],
    floor: int,
    scores: Scores,
    limits: NDArray[np.int64],
    space: Space,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks and reachability of policies with one floor and one way of pricing."""
    check_scores(scores, space.channel_map)
    units = units_of(space.channel_map, floor, space.round_to)
    if _at_present(policies[0]):
        power = np.array([policy.price_power for policy in policies])
        blend = np.array([policy.price_blend for policy in policies])
        rank = rank_at_present(scores, units, space.price, Division(power, blend), limits)
    else:
        rank = rank_by_score(scores, units)
    return fill(rank, space.channel_map, space.price, limits, single=units.single)
