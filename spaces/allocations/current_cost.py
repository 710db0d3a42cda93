"""The order of removal when each price is that of the network as it is by then.

Whoever leaves makes its neighbours cheaper, so with the marginal price p_i(m) of the present mask
m, the next unit to go is the one with the least

    s_i / p_i(m)^power,   m <- m without it,   until the budget is met

A group's units leave in the order of their scores, so only the groups' heads compete. A unit of
several atoms has their mean score and, as its price, that of its first atom. At the first step
this is the division by the dense price (Group Fisher, Liu et al. 2021).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays import BoolArray, IntArray
from ..cost.cost import CostModel
from ..policy.layer_scores import Scores
from ..policy.normalization import cost_scale, cost_weights, divide_keeping_order
from .units import Ranks, RemovalUnits, ranks_by_atom

STEPS_BETWEEN_CHECKS = 32  # steps between two looks at which rows have met their limits


@dataclass(frozen=True, slots=True, eq=False)
class CostDivision:
    """By which price the scores of each row are divided."""

    power: Scores  # [B]
    blend: Scores  # [B], 0 = MACs, 1 = params


@dataclass(slots=True, eq=False)
class _RemovalState:
    """Where each of the rows that still remove atoms stands."""

    index: IntArray  # [R]
    slot: IntArray  # [R, G], of each group's head
    head_score: Scores  # [R, G], of each head
    kind: IntArray  # [R, G], of each head
    saving: Scores  # [2, R, C], by kind; whole numbers below 2^53, hence exact
    excess: Scores  # [2, R], above the limits
    weights: Scores  # [R, 2], of macs and params in the price
    power: Scores  # [R, 1]

    def select(self, wanted: BoolArray) -> _RemovalState:
        """These rows alone."""
        return _RemovalState(
            self.index[wanted],
            self.slot[wanted],
            self.head_score[wanted],
            self.kind[wanted],
            self.saving[:, wanted],
            self.excess[:, wanted],
            self.weights[wanted],
            self.power[wanted],
        )

    def next_group(self) -> IntArray:
        """The group [R] whose head has the least worth for its price; of equals the first."""
        macs, params = self.saving
        if self.kind.shape[1] < macs.shape[1]:  # groups of several kinds
            macs = np.take_along_axis(macs, self.kind, axis=1)
            params = np.take_along_axis(params, self.kind, axis=1)
        price = self.weights[:, :1] * macs + self.weights[:, 1:] * params
        ratio = divide_keeping_order(self.head_score, cost_scale(price, self.power))
        return np.asarray(ratio.argmin(axis=1))


def rank_by_current_cost(
    scores: Scores,
    units: RemovalUnits,
    cost_model: CostModel,
    division: CostDivision,
    limits: IntArray,
) -> Ranks:
    """Ranks [B, A] in the order of removal, as far as the limits [B, 2] need it; else A."""
    finite = np.clip(scores, -1e200, 1e200)  # of which quotients can be taken
    atoms = units.atoms_by_slot(finite)
    worth = _unit_scores_by_slot(finite, units, atoms)
    kind = cost_model.atom_kinds.kind_of_atom[atoms]
    rank = np.full(scores.shape, scores.shape[1], dtype=np.int32)
    change = cost_model.atom_kinds.change.astype(np.float64)
    rows = _initial_state(worth, kind, units, cost_model, division, limits)
    for step in range(int(units.size.sum())):
        if step % STEPS_BETWEEN_CHECKS == 0:
            rows = rows.select(np.asarray((rows.excess > 0).any(axis=0)))
            each = np.arange(len(rows.index))
            if not len(each):
                break
        group = rows.next_group()
        slot, leaving = rows.slot[each, group], rows.kind[each, group]
        rank[rows.index, slot] = step
        rows.excess -= rows.saving[:, each, leaving]
        rows.saving -= change[:, leaving]
        rows.slot[each, group] = slot + 1
        rows.head_score[each, group] = worth[rows.index, slot + 1]
        rows.kind[each, group] = kind[rows.index, slot + 1]
    return ranks_by_atom(_rank_whole_units(rank, units), atoms)


def _unit_scores_by_slot(scores: Scores, units: RemovalUnits, atoms: IntArray) -> Scores:
    """A unit's worth in its first slot, -inf in its others (they follow), inf for who stays."""
    stays = units.unit_of_slot == len(units.start)
    worth = np.tile(np.where(stays, np.inf, -np.inf), (len(scores), 1))
    worth[:, units.start] = units.unit_scores(scores, atoms)
    return worth


def _rank_whole_units(rank: Ranks, units: RemovalUnits) -> Ranks:
    """All slots of a unit have the rank of its first, even if the limits were met half-way."""
    first = np.arange(rank.shape[1])
    moved = units.unit_of_slot < len(units.start)
    first[moved] = units.start[units.unit_of_slot[moved]]
    return rank[:, first]


def _initial_state(
    worth: Scores,
    kind: IntArray,
    units: RemovalUnits,
    cost_model: CostModel,
    division: CostDivision,
    limits: IntArray,
) -> _RemovalState:
    """All rows at the dense network."""
    count, heads = len(worth), units.bounds[:-1]
    sizes, dense = cost_model.atom_kinds.size, np.ones(worth.shape[1], dtype=bool)
    return _RemovalState(
        index=np.arange(count),
        slot=np.tile(heads, (count, 1)),
        head_score=worth[:, heads],
        kind=kind[:, heads],
        saving=np.repeat(
            cost_model.atom_kinds.savings_of_removing(sizes[None]), count, axis=1
        ).astype(np.float64),
        excess=(np.array(cost_model.dense) - limits).T.astype(np.float64),
        weights=cost_weights(cost_model.marginal_costs(dense), division.blend),
        power=division.power[:, None],
    )
