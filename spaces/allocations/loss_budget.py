"""Loss-variation budget: every group is cut as far as one threshold allows (Li et al. 2020).

    k_g = max { k : dL_g(k) <= t },   t given, or the smallest t whose mask meets the target

The k-th removed atom of a group has the score dL_g(k), so the solver of `budget.py` finds the
threshold for a target: masks of two thresholds are nested, and the fill makes the cost exact.

least-sum   min sum_g dL_g(k_g)  subject to the cost: an atom has the score d dL_g / d cost on the
            lower convex hull of its group's curve (the Lagrange multiplier of one more cut)

We differ in: probes are cached, so the threshold can be solved for MACs, params or both; a and b
of a stage rescale its curves; least-sum is ours.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..arrays import IntArray, Mask
from ..cost.cost import CostModel
from ..errors import UserError
from ..graph.channels import ChannelMap
from ..policy.layer_scores import Scores
from ..policy.loss_curves import (
    LossCurves,
    bisect_removed_count,
    curves_name,
    rise_table,
    rise_tables,
)
from ..policy.normalization import TINY, stage_coefficients, stages_of_groups
from ..policy.policy import Policy
from .units import build_units, rank_by_score


def curves_for_policy(policy: Policy, measured: Mapping[str, LossCurves]) -> LossCurves:
    """Return the loss curves that the policy reads."""
    name = curves_name(policy.score, policy.combine, policy.probe)
    if name not in measured:
        raise UserError(
            f"allocation loss-budget must have measured loss curves, got none for {name!r}; "
            "measure them with measure_curves, or choose another allocation"
        )
    return measured[name]


def removal_order_by_loss(
    policy: Policy, curves: LossCurves, cost_model: CostModel, channel_map: ChannelMap
) -> Scores:
    """Return removal positions [A], from 0; groups keep the order of their curves."""
    rises = loss_rise_by_atom(curves, channel_map, policy.stages)
    if policy.curves == "least-sum":
        marginal = cost_model.marginal_costs(np.ones(channel_map.atoms, dtype=bool))
        shares = marginal / np.maximum(marginal.sum(axis=0), TINY)
        costs = shares @ np.array([1 - policy.price_blend, policy.price_blend])
        rises = convex_hull_slopes(rises, costs, curves, channel_map)
    order = np.lexsort((curves.place, rises))
    positions = np.empty(channel_map.atoms)
    positions[order] = np.arange(channel_map.atoms)
    return positions


def loss_rise_by_atom(
    curves: LossCurves, channel_map: ChannelMap, stages: tuple[float, ...] = ()
) -> Scores:
    """Return the rise [A] of the cut that ends with each atom; inf for the last of a group."""
    rises = np.empty(channel_map.atoms)
    for group, table in enumerate(rise_tables(curves, channel_map)):
        atoms = atoms_in_removal_order(group, curves, channel_map)
        rises[atoms] = np.append(table, np.inf)[1:]
    if stages:
        stage = stages_of_groups(channel_map)
        pairs = stage_coefficients(stages, int(stage.max(initial=0)) + 1)
        factor, shift = pairs[stage[channel_map.group_of]].T
        finite = np.isfinite(rises)
        rises[finite] = factor[finite] * rises[finite] + shift[finite]
    for group in range(len(channel_map.groups)):  # a negative factor must not reverse the order
        atoms = atoms_in_removal_order(group, curves, channel_map)
        rises[atoms] = np.maximum.accumulate(rises[atoms])
    return rises


def convex_hull_slopes(
    rises: Scores, costs: Scores, curves: LossCurves, channel_map: ChannelMap
) -> Scores:
    """Return d rise / d cost [A] along the lower convex hull of each group's curve."""
    slopes = np.full(len(rises), np.inf)
    for group in range(len(channel_map.groups)):
        atoms = atoms_in_removal_order(group, curves, channel_map)
        atoms = atoms[np.isfinite(rises[atoms])]
        saved = np.concatenate(([0.0], np.cumsum(np.maximum(costs[atoms], TINY))))
        height = np.concatenate(([0.0], rises[atoms]))
        at = 0
        while at < len(atoms):
            ahead = (height[at + 1 :] - height[at]) / (saved[at + 1 :] - saved[at])
            to = at + 1 + int(len(ahead) - 1 - ahead[::-1].argmin())
            slopes[atoms[at:to]] = ahead.min()
            at = to
        slopes[atoms] = np.maximum.accumulate(slopes[atoms])  # rounding must not reverse the order
    return slopes


def atoms_in_removal_order(group: int, curves: LossCurves, channel_map: ChannelMap) -> IntArray:
    """Return the atoms of a group in the order of removal."""
    atoms = np.flatnonzero(channel_map.group_of == group)
    return atoms[np.argsort(curves.place[atoms])]


def mask_under_threshold(
    policy: Policy,
    curves: LossCurves,
    cost_model: CostModel,
    channel_map: ChannelMap,
    *,
    floor: int = 1,
    round_to: int = 1,
) -> Mask:
    """Return the mask [A] that cuts each group as far as the policy's threshold allows."""
    counts = removed_counts_under_threshold(policy, curves, channel_map)
    removed = curves.place <= counts[channel_map.group_of]
    order = removal_order_by_loss(policy, curves, cost_model, channel_map)
    rank = rank_by_score(order[None], build_units(channel_map, floor, round_to))[0]
    # A unit is removed as a whole: it stays if one of its atoms stays.
    stays = np.bincount(rank[~removed], minlength=channel_map.atoms + 1) > 0
    stays[channel_map.atoms] = True
    return np.asarray(stays[rank])


def removed_counts_under_threshold(
    policy: Policy, curves: LossCurves, channel_map: ChannelMap
) -> IntArray:
    """Return how many atoms of each group [G] the policy's threshold removes.

    Curves of the paper's bisection are read by the same bisection: it uses measured probes, and
    the interpolated table only where there is no probe.
    """
    threshold = np.inf if policy.threshold is None else policy.threshold
    groups = range(len(channel_map.groups))
    if curves.settings.method == "paper" and not policy.stages:
        sizes = np.bincount(channel_map.group_of, minlength=len(groups)).tolist()
        return np.array([_replay_bisection(curves.probes(g), sizes[g], threshold) for g in groups])
    rises = loss_rise_by_atom(curves, channel_map, policy.stages)
    under = (rises <= threshold) & np.isfinite(rises)
    return np.bincount(channel_map.group_of[under], minlength=len(groups))


def _replay_bisection(probes: dict[int, float], size: int, threshold: float) -> int:
    """Repeat the bisection of one group on its probes."""
    table = rise_table(probes, size)
    return bisect_removed_count(size, lambda k: probes.get(k, float(table[k])) <= threshold)


def predicted_loss(mask: Mask, curves: LossCurves, channel_map: ChannelMap) -> float:
    """Return the loss of a mask if groups did not interact: the base plus the sum of rises.

    The benchmarks and tests compare it with the measured loss.
    """
    groups = channel_map.group_of
    loss = curves.base
    for group, table in enumerate(rise_tables(curves, channel_map)):
        gone, before = (int((~m[groups == group]).sum()) for m in (mask, curves.around))
        loss += float(table[gone] - table[before]) if gone != before else 0.0
    return loss


def implied_threshold(mask: Mask, curves: LossCurves, channel_map: ChannelMap) -> float:
    """Return the threshold that a mask corresponds to: the largest rise among its groups.

    The benchmarks report it, and a test compares it with the solved threshold.
    """
    gone = np.bincount(channel_map.group_of[~mask], minlength=len(channel_map.groups))
    tables = rise_tables(curves, channel_map)
    return max((float(t[k]) for t, k in zip(tables, gone, strict=True)), default=0.0)
