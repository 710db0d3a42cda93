"""The mask that keeps the best atoms within an exact budget.

Units are ordered by (score, stable index) and removed until the budget is met: the prefix. Then,
in reverse order, each unit that still fits is added back: the fill. The price rises with every
unit, so one that does not fit once never fits later, and one pass leaves a maximal mask: no single
unit can be added back. Prefixes of two budgets are nested; filled masks need not be.

A unit is one atom or, with `round_to`, the atoms that take a group to its next lower allowed
width; if such a unit does not fit, the rest of its group stays out too, else its width would be no
multiple.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import gcd, lcm

import numpy as np
from numpy.typing import NDArray

from ..channels import ChannelMap
from ..errors import UserError
from ..price import Price

BLOCK = 256  # units tried at once


class Unreachable(UserError):
    """A budget below what the cheapest allowed mask costs."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that a mask may cost, in whole multiply-adds and parameters; None: any."""

    macs: int | None = None
    params: int | None = None

    def fits(self, prices: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the prices [..., 2] are within the budget."""
        huge = np.iinfo(np.int64).max
        limits = [huge if limit is None else limit for limit in (self.macs, self.params)]
        return np.asarray((prices <= np.array(limits)).all(axis=-1))


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """What is removed and added back as one, in the order of removal."""

    of_atom: NDArray[np.int64]  # [A], the unit's place in the order; -1: never removed
    group: NDArray[np.int64]  # [U]
    rows: NDArray[np.int64]  # [U, K], kept channels of every side that it owns
    chained: bool  # a group's later units wait for its earlier ones


def fill_to_budget(
    scores: NDArray[np.float64],
    price: Price,
    channel_map: ChannelMap,
    budget: Budget,
    *,
    floor: int = 1,
    round_to: int = 1,
) -> NDArray[np.bool_]:
    """The maximal mask [A] within the budget that keeps the highest scores.

    Every group keeps at least `floor` atoms; its layers' widths are multiples of `round_to` or
    dense.
    """
    _check(scores, channel_map, floor, round_to)
    units = order_units(scores, price, channel_map, floor, round_to)
    dense = price.kept(np.ones((1, channel_map.atoms), dtype=bool))[0]
    removed = prefix(units, dense, price, budget)
    if removed is None:
        raise Unreachable(_unreachable(price, channel_map, units, budget, floor, round_to))
    kept = dense - units.rows[:removed].sum(axis=0)
    back = _fill(units, kept, removed, price, budget)
    gone = np.zeros(len(units.group) + 1, dtype=bool)  # the last is for unit -1
    gone[:removed] = True
    gone[back] = False
    return np.asarray(~gone[units.of_atom])


def order_units(
    scores: NDArray[np.float64], price: Price, channel_map: ChannelMap, floor: int, round_to: int
) -> Units:
    """All units in the order in which they are removed."""
    finite = np.clip(scores, -1e300, 1e300)
    worth, members, group = [], [], []
    for index in range(len(channel_map.groups)):
        atoms = np.flatnonzero(channel_map.group_of == index)
        atoms = atoms[np.argsort(finite[atoms], kind="stable")]
        step = width_step(channel_map, index, round_to)
        parts = _chunks(atoms, floor, step)
        # rounding in the mean must not turn the order within a group
        worth += np.maximum.accumulate([finite[part].mean() for part in parts]).tolist()
        members += parts
        group += [index] * len(parts)
    first = [int(part.min()) for part in members] if round_to == 1 else list(range(len(members)))
    order = np.lexsort((first, worth)) if members else np.zeros(0, dtype=np.int64)
    of_atom = np.full(channel_map.atoms, -1, dtype=np.int64)
    rows = np.zeros((len(members), price.rows.shape[1]), dtype=np.int64)
    for place, unit in enumerate(order):
        of_atom[members[unit]] = place
        rows[place] = price.rows[members[unit]].sum(axis=0)
    groups = np.array(group, dtype=np.int64)[order]
    return Units(of_atom, groups, rows, chained=round_to > 1)


def width_step(channel_map: ChannelMap, group: int, round_to: int) -> int:
    """How many atoms of a group change every layer's width by a multiple of `round_to`."""
    if round_to == 1:
        return 1
    own = channel_map.group_of == group
    producers = set(channel_map.groups[group].layers)
    step = 1
    for layer in channel_map.layers:
        if layer.name in producers:
            atoms = layer.out_atoms[layer.out_atoms >= 0]
            channels = np.bincount(atoms, minlength=channel_map.atoms)[own]
            same = int(channels[0]) if (channels == channels[0]).all() else 1
            step = lcm(step, round_to // gcd(round_to, same))
    return step


def _chunks(atoms: NDArray[np.int64], floor: int, step: int) -> list[NDArray[np.int64]]:
    """Cut a group's atoms, lowest score first, at its allowed widths."""
    lowest = -(-floor // step) * step
    widths = [len(atoms), *range((len(atoms) - 1) // step * step, lowest - 1, -step)]
    cuts = [len(atoms) - width for width in widths]
    return [atoms[a:b] for a, b in pairwise(cuts)]


def prefix(units: Units, dense: NDArray[np.int64], price: Price, budget: Budget) -> int | None:
    """How many units must go, in their order, until the budget is met; None: all do not do."""

    def meets(count: int) -> bool:
        kept = dense - units.rows[:count].sum(axis=0)
        return bool(budget.fits(price.at(kept[None]))[0])

    low, high = 0, len(units.group)
    if not meets(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if meets(middle) else (middle + 1, high)
    return low


def _fill(
    units: Units, kept: NDArray[np.int64], removed: int, price: Price, budget: Budget
) -> NDArray[np.int64]:
    """The removed units that fit again, tried from the last removed to the first."""
    waiting = np.arange(removed - 1, -1, -1)
    back: list[NDArray[np.int64]] = []
    while len(waiting):
        block = waiting[:BLOCK]
        together = budget.fits(price.at(kept + units.rows[block].cumsum(axis=0)))
        run = int(together.argmin()) if not together.all() else len(block)
        if run:
            back.append(block[:run])
            kept = kept + units.rows[block[:run]].sum(axis=0)
            waiting = waiting[run:]
            continue
        alone = budget.fits(price.at(kept + units.rows[block]))
        run = int(alone.argmax()) if alone.any() else len(block)
        if units.chained:
            run, blocked = 1, units.group[block[0]]
            waiting = waiting[1:][units.group[waiting[1:]] != blocked]
        else:
            waiting = waiting[run:]
    return np.concatenate(back) if back else np.zeros(0, dtype=np.int64)


def _check(
    scores: NDArray[np.float64], channel_map: ChannelMap, floor: int, round_to: int
) -> None:
    if np.shape(scores) != (channel_map.atoms,):
        raise UserError(
            f"scores must be one number an atom, [{channel_map.atoms}], got "
            f"{list(np.shape(scores))}; compute them from this network's channel map"
        )
    bad = int(np.isnan(scores).sum())
    if bad:
        raise UserError(
            f"scores must be numbers, got NaN for {bad} of {len(scores)} atoms; "
            "look for NaN in the weights or the loss they were computed from"
        )
    for name, value in (("min-channels", floor), ("round-to", round_to)):
        if value < 1:
            raise UserError(f"{name} must be at least 1, got {value}; leave it out for 1")


def _unreachable(
    price: Price,
    channel_map: ChannelMap,
    units: Units,
    budget: Budget,
    floor: int,
    round_to: int,
) -> str:
    lowest = price.of(units.of_atom < 0)
    wishes = zip(
        ("macs", "params"), (budget.macs, budget.params), lowest, price.dense, strict=True
    )
    missed = [
        f"{name} cannot go below {100 * least / whole:.2f} % of dense ({least:,}), asked {limit:,}"
        for name, limit, least, whole in wishes
        if limit is not None and least > limit
    ]
    causes = [f"every group keeps {floor} atom{'s' * (floor > 1)}"]
    if round_to > 1:
        causes.append(f"widths are multiples of {round_to}")
    if channel_map.protected:
        channels = sum(p.channels for p in channel_map.protected)
        first = channel_map.protected[0]
        causes.append(
            f"{channels} channels are protected (the first in {first.layer}: {first.reason})"
        )
    return (
        f"the budget must be reachable, but {' and '.join(missed)}, because "
        f"{', '.join(causes)}; raise the target or lower min-channels, round-to or keep"
    )
