"""The plan: how many trials, and which target each of them aims at. A function of the settings.

A slot is one planned trial. Half of the slots aim at the user's target, the other half are spread
over round shares of the dense network around it, so that the front is a curve, the answer at the
target is strong, and so is the one at other sizes that people ask for; then over those between.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...spaces.allocations.decode import PruningSpace
from ...spaces.cost.target import Target

DEFAULT_SPREAD = (0.5, 2.0)  # factors of the target
MIN_GRID_STEPS = 8  # at least, of round shares between nothing and the target


@dataclass(frozen=True, slots=True)
class PlannedTrial:
    """One planned trial."""

    index: int
    target: Target


def make_plan(
    trials: int,
    target: Target,
    space: PruningSpace,
    *,
    spread: tuple[float, float] = DEFAULT_SPREAD,
) -> tuple[PlannedTrial, ...]:
    """`trials` slots: even ones at the target, odd ones spread."""
    dense = space.cost_model.dense
    between = reachable_spread(target, space, spread)
    factors = order_coarse_first(target_factors(target, dense, between))
    factors += order_coarse_first(target_factors(target, dense, between, finer=2), known=factors)

    def target_of(index: int) -> Target:
        if index % 2 == 0:
            return target
        return target.scaled(factors[index // 2 % len(factors)], dense)

    return tuple(PlannedTrial(i, target_of(i)) for i in range(trials))


def target_factors(
    target: Target, dense: tuple[int, int], between: tuple[float, float], *, finer: int = 1
) -> tuple[float, ...]:
    """What makes round shares of the target's first part, the target itself left out."""
    part = target.first_fraction(dense)
    grain = round_grid_step(part / MIN_GRID_STEPS) / finer
    first, last = (round(bound * part / grain, 6) for bound in between)
    shares = [number * grain for number in range(math.ceil(first), math.floor(last) + 1)]
    around = [share / part for share in shares if not math.isclose(share, part)]
    return tuple(around) or (between[1],)


def order_coarse_first(
    factors: tuple[float, ...], known: tuple[float, ...] = ()
) -> tuple[float, ...]:
    """The ends first, then the widest gaps: each as far as can be from all before and the target.

    However few trials there are, the front reaches over the whole of the spread. Of gaps alike the
    smaller size comes first: there the front is steep. Those known have had their turn.
    """
    before, left = [1.0, *known], [factor for factor in factors if factor not in known]
    while left:
        gaps = {factor: min(abs(factor - one) for one in before) for factor in left}
        widest = max(left, key=lambda factor: (round(gaps[factor], 9), -factor))
        before.append(widest)
        left.remove(widest)
    return tuple(before[1 + len(known) :])


def round_grid_step(most: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is at most this."""
    power = 10.0 ** math.floor(math.log10(most))
    return max(digit * power for digit in (1, 2, 5) if digit * power <= most * (1 + 1e-9))


def reachable_spread(
    target: Target, space: PruningSpace, spread: tuple[float, float] = DEFAULT_SPREAD
) -> tuple[float, float]:
    """The factors between which the target is reachable and its first part below the dense size.

    A second part that the factor would take beyond the dense size asks for nothing there.
    """
    dense = space.cost_model.dense
    parts = [
        (part, small / whole)
        for part, small, whole in zip(
            target.fractions(dense), space.min_cost(), dense, strict=True
        )
        if part is not None
    ]
    low = max([spread[0], *(1.1 * reach / part for part, reach in parts)])
    high = min(spread[1], 0.95 / target.first_fraction(dense))
    return (low, high) if low < high else (1.0, 1.0)


def trial_seed(seed: int) -> int:
    """One for all trials of a search: they differ in their policies alone, see the same batches in
    the same order, and a teacher need not look at a batch twice.
    """
    return derive_seed(seed, 0)


def derive_seed(*parts: int) -> int:
    """A seed from several numbers, the same on every machine."""
    state = 0x9E3779B97F4A7C15
    for part in parts:
        state = ((state ^ (part & (2**64 - 1))) * 0xBF58476D1CE4E5B9 + 1) % 2**64
        state ^= state >> 29
    return state % 2**31
