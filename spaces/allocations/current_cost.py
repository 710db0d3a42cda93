"""The order of removal when scores are divided by the marginal cost in the current network.

Removing a unit makes the units coupled to it by a layer cheaper. With the marginal cost c_i(m) of
unit i in the current mask m, the next unit to remove is the one with the smallest

    s_i / c_i(m)^power,   then m <- m without it,   until the budget is met

The units of a group are removed in the order of their scores, so only the next unit of each group,
its head, is compared. A unit of several atoms has their mean score and the cost of its first atom.
The first step equals division by the cost in the dense network (Group Fisher, Liu et al. 2021).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays import BoolArray, IntArray
from ..cost.cost import CostModel
from ..policy.layer_scores import Scores
from ..policy.normalization import cost_scale, cost_weights, divide_keeping_order
from .units import Ranks, RemovalUnits, ranks_by_atom

STEPS_BETWEEN_CHECKS = 32  # steps between checks of which rows have met their limits


@dataclass(frozen=True, slots=True, eq=False)
class CostDivision:
    """The cost that divides the scores, for each row."""

    power: Scores  # [B]
    blend: Scores  # [B], 0 = MACs, 1 = params


@dataclass(slots=True, eq=False)
class _RemovalState:
    """The state of the R rows that still remove atoms."""

    index: IntArray  # [R], row in the batch
    slot: IntArray  # [R, G], slot of each group's head
    head_score: Scores  # [R, G], score of each head
    kind: IntArray  # [R, G], kind of each head
    saving: Scores  # [2, R, C], by kind; integers below 2^53, hence exact
    excess: Scores  # [2, R], cost above the limits
    weights: Scores  # [R, 2], of macs and params in the cost
    power: Scores  # [R, 1]

    def select(self, wanted: BoolArray) -> _RemovalState:
        """Return the state of some rows."""
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
        """Return the group [R] whose head has the smallest score per cost; of equals the first."""
        macs, params = self.saving
        if self.kind.shape[1] < macs.shape[1]:  # groups of several kinds
            macs = np.take_along_axis(macs, self.kind, axis=1)
            params = np.take_along_axis(params, self.kind, axis=1)
        cost = self.weights[:, :1] * macs + self.weights[:, 1:] * params
        ratio = divide_keeping_order(self.head_score, cost_scale(cost, self.power))
        return np.asarray(ratio.argmin(axis=1))


def rank_by_current_cost(
    scores: Scores,
    units: RemovalUnits,
    cost_model: CostModel,
    division: CostDivision,
    limits: IntArray,
) -> Ranks:
    """Return the order of removal [B, A] until the limits [B, 2] are met; kept atoms have A."""
    finite = np.clip(scores, -1e200, 1e200)  # so that quotients stay finite
    atoms = units.atoms_by_slot(finite)
    slot_scores = _unit_scores_by_slot(finite, units, atoms)
    kind = cost_model.atom_kinds.kind_of_atom[atoms]
    rank = np.full(scores.shape, scores.shape[1], dtype=np.int32)
    change = cost_model.atom_kinds.change.astype(np.float64)
    rows = _initial_state(slot_scores, kind, units, cost_model, division, limits)
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
        rows.head_score[each, group] = slot_scores[rows.index, slot + 1]
        rows.kind[each, group] = kind[rows.index, slot + 1]
    return ranks_by_atom(_rank_whole_units(rank, units), atoms)


def _unit_scores_by_slot(scores: Scores, units: RemovalUnits, atoms: IntArray) -> Scores:
    """Return the score of each unit in its first slot, -inf in its others, inf for kept atoms."""
    stays = units.unit_of_slot == len(units.start)
    slot_scores = np.tile(np.where(stays, np.inf, -np.inf), (len(scores), 1))
    slot_scores[:, units.start] = units.unit_scores(scores, atoms)
    return slot_scores


def _rank_whole_units(rank: Ranks, units: RemovalUnits) -> Ranks:
    """Give all slots of a unit the rank of its first, also where limits were met half-way."""
    first = np.arange(rank.shape[1])
    moved = units.unit_of_slot < len(units.start)
    first[moved] = units.start[units.unit_of_slot[moved]]
    return rank[:, first]


def _initial_state(
    slot_scores: Scores,
    kind: IntArray,
    units: RemovalUnits,
    cost_model: CostModel,
    division: CostDivision,
    limits: IntArray,
) -> _RemovalState:
    """Return the state in which all rows keep every atom."""
    count, heads = len(slot_scores), units.bounds[:-1]
    sizes, dense = cost_model.atom_kinds.size, np.ones(slot_scores.shape[1], dtype=bool)
    return _RemovalState(
        index=np.arange(count),
        slot=np.tile(heads, (count, 1)),
        head_score=slot_scores[:, heads],
        kind=kind[:, heads],
        saving=np.repeat(
            cost_model.atom_kinds.savings_of_removing(sizes[None]), count, axis=1
        ).astype(np.float64),
        excess=(np.array(cost_model.dense) - limits).T.astype(np.float64),
        weights=cost_weights(cost_model.marginal_costs(dense), division.blend),
        power=division.power[:, None],
    )
