"""Decode policies: compute the mask of each from measurements and a target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..arrays import IntArray, Mask
from ..cost.cost import CostModel
from ..cost.target import Target
from ..graph.channels import ChannelMap
from ..policy.layer_scores import Scores
from ..policy.measurements import Measurements
from ..policy.policy import Policy
from .budget import Budget, check_atom_scores, check_width_limits, unreachable_error
from .current_cost import CostDivision, rank_by_current_cost
from .fill import fill_masks
from .loss_budget import curves_for_policy, mask_under_threshold
from .ordering import PolicyScorer
from .units import build_units, rank_by_score

POLICIES_PER_BATCH = 512  # policies decoded in one batch


@dataclass(frozen=True, slots=True, eq=False)
class PruningSpace:
    """The channel map of one network, its cost model, and the user's limits on widths."""

    channel_map: ChannelMap
    cost_model: CostModel
    min_channels: int = 1
    round_to: int = 1

    def min_cost(self) -> tuple[int, int]:
        """Return the (macs, params) of the smallest network that the limits allow."""
        units = build_units(self.channel_map, self.min_channels, self.round_to)
        macs, params = self.cost_model.cost_of(units.unit_of_slot == len(units.start))
        return int(macs), int(params)


def decode_policy(
    policy: Policy, target: Target, measurements: Measurements, space: PruningSpace
) -> Mask:
    """Return the largest mask [A] of a policy within the target.

    If the policy's `floor` makes the target unreachable, the floor drops to `min_channels`.

    Args:
        policy: The policy.
        target: The limits on the mask's cost.
        measurements: The scores and curves that the policy reads.
        space: The network's pruning space.

    Raises:
        UnreachableBudgetError: If the smallest allowed mask is above the target.
    """
    (mask,), reachable = decode_policies([policy], [target], measurements, space)
    if not reachable.all():
        raise unreachable_error(
            space.cost_model,
            space.channel_map,
            mask,
            Budget(*target.limits(space.cost_model.dense)),
            floor=space.min_channels,
            round_to=space.round_to,
        )
    return np.asarray(mask)


def decode_policies(
    policies: Sequence[Policy],
    targets: Sequence[Target],
    measurements: Measurements,
    space: PruningSpace,
) -> tuple[Mask, Mask]:
    """Return the masks [B, A] of policies, each at its own target, and which reach it [B].

    A row that cannot reach its target holds the smallest mask that the limits allow. A policy with
    a loss-variation threshold removes all that the threshold allows, also beyond the target.
    """
    check_width_limits(space.min_channels, space.round_to)
    scorer = PolicyScorer(measurements, space.channel_map, space.cost_model)
    dense = space.cost_model.dense
    limits = np.array([Budget(*t.limits(dense)).limits for t in targets]).reshape(-1, 2)
    masks = np.ones((len(policies), space.channel_map.atoms), dtype=bool)
    reachable = np.zeros(len(policies), dtype=bool)
    pending = [(row, max(p.floor, space.min_channels)) for row, p in enumerate(policies)]
    while pending:
        for rows, floor in _group_by_floor(policies, pending):
            batch = [policies[row] for row in rows]
            masks[rows], reachable[rows] = _decode_batch(
                batch, floor, scorer.scores(batch), limits[rows], space
            )
            for row in (row for row in rows if policies[row].has_loss_threshold):
                curves = curves_for_policy(policies[row], measurements.curves)
                masks[row] &= mask_under_threshold(
                    policies[row],
                    curves,
                    space.cost_model,
                    space.channel_map,
                    floor=floor,
                    round_to=space.round_to,
                )
        pending = [
            (row, space.min_channels)
            for row, floor in pending
            if floor > space.min_channels and not reachable[row]
        ]
    return masks, reachable


def _group_by_floor(
    policies: Sequence[Policy], pending: list[tuple[int, int]]
) -> Iterator[tuple[list[int], int]]:
    """Yield rows that can be decoded in one batch, and their floor."""
    found: dict[tuple[bool, int], list[int]] = {}
    for row, floor in pending:
        found.setdefault((_uses_current_cost(policies[row]), floor), []).append(row)
    for (_, floor), rows in found.items():
        for start in range(0, len(rows), POLICIES_PER_BATCH):
            yield rows[start : start + POLICIES_PER_BATCH], floor


def _uses_current_cost(policy: Policy) -> bool:
    """Whether a policy divides by the cost in the current, not the dense, network."""
    divides = policy.price_power > 0 and policy.allocation == "global-threshold"
    return divides and policy.price_at == "present"


def _decode_batch(
    policies: list[Policy],
    floor: int,
    scores: Scores,
    limits: IntArray,
    space: PruningSpace,
) -> tuple[Mask, Mask]:
    """Return masks and reachability of policies with one floor and one cost reference."""
    check_atom_scores(scores, space.channel_map)
    units = build_units(space.channel_map, floor, space.round_to)
    if _uses_current_cost(policies[0]):
        power = np.array([policy.price_power for policy in policies])
        blend = np.array([policy.price_blend for policy in policies])
        rank = rank_by_current_cost(
            scores, units, space.cost_model, CostDivision(power, blend), limits
        )
    else:
        rank = rank_by_score(scores, units)
    return fill_masks(
        rank, space.channel_map, space.cost_model, limits, single=units.are_single_atoms
    )
