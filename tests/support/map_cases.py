"""Small random networks for property tests: atoms in groups, layers between them, a budget."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from paretoprune.spaces.allocations.budget import Budget
from paretoprune.spaces.cost.cost import CostModel
from paretoprune.spaces.graph.channels import ChannelMap, Group, Layer, ProtectedChannels

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A network, what its masks cost, scores of its atoms and a budget."""

    channel_map: ChannelMap
    cost_model: CostModel
    scores: NDArray[np.float64]
    budget: Budget


@st.composite
def cases(draw: st.DrawFn, atoms: int = 12, lowest: int = 0) -> Case:
    """Up to three groups, perhaps of one atom or of several kinds; scores with ties."""
    sizes = draw(st.lists(st.integers(1, atoms // 3), min_size=1, max_size=3))
    starts = np.cumsum([0, *sizes])
    sides = [np.arange(a, b, dtype=np.int32) for a, b in pairwise(starts)]
    fixed = np.full(2, -1, dtype=np.int32)
    count = len(sides)
    layers = [Layer(f"l{i}", "conv", side, fixed, 1, 3, 2, 1) for i, side in enumerate(sides)]
    for number in range(draw(st.integers(1, 4))):
        out, into = draw(st.integers(0, count)), draw(st.integers(0, count - 1))
        cost = draw(st.integers(1, 9))
        out_side = fixed if out == count else sides[out]
        in_side = sides[into][draw(st.integers(0, 1)) :]  # a layer may see a part of a group
        layers.append(Layer(f"m{number}", "linear", out_side, in_side, 1, cost, 1))
    channel_map = ChannelMap(
        layers=tuple(layers),
        groups=tuple(Group(f"l{i}", (f"l{i}",)) for i in range(count)),
        group_of=np.repeat(np.arange(count, dtype=np.int32), sizes),
        protected=(ProtectedChannels("head", 2, "output of the network"),),
        input_shape=(1,),
        fixed_macs=draw(st.integers(0, 5)),
    )
    cost_model = CostModel(channel_map)
    total = int(starts[-1])
    scores = draw(st.lists(st.integers(lowest, 4), min_size=total, max_size=total))
    shares = [draw(st.none() | st.floats(0.05, 1.0)) for _ in range(2)]
    limits = [
        None if s is None else int(s * d) for s, d in zip(shares, cost_model.dense, strict=True)
    ]
    return Case(channel_map, cost_model, np.array(scores, dtype=float), Budget(*limits))


def fits(case: Case, mask: Mask) -> bool:
    """The mask is within the case's budget."""
    return bool(case.budget.is_met_by(case.cost_model.cost_of(mask)))


def plain_units(case: Case, floor: int, step: int = 1) -> list[list[list[int]]]:
    """The units of each group in their order of removal, computed by a plain loop."""
    units = []
    for group in range(len(case.channel_map.groups)):
        members = np.flatnonzero(case.channel_map.group_of == group).tolist()
        left = sorted(members, key=lambda atom: (case.scores[atom], atom))
        own = []
        while True:
            narrower = [w for w in range(len(left)) if w % step == 0 and w >= floor]
            if not narrower:
                break
            size = len(left) - max(narrower)
            own.append(left[:size])
            left = left[size:]
        units.append(own)
    return units


def plain_fill(case: Case, order: list[list[int]], group_waits: bool = False) -> Mask | None:
    """Remove unit by unit until the budget is met, then add back unit by unit."""
    mask = np.ones(len(case.scores), dtype=bool)
    removed: list[list[int]] = []
    for unit in order:
        if fits(case, mask):
            break
        mask[unit] = False
        removed.append(unit)
    if not fits(case, mask):
        return None
    closed = set()
    for unit in reversed(removed):
        group = int(case.channel_map.group_of[unit[0]])
        if group_waits and group in closed:
            continue
        mask[unit] = True
        if not fits(case, mask):
            mask[unit] = False
            closed.add(group)
    return mask
