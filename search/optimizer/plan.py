"""The plan: the number of trials and the target of each, derived from the settings alone.

Half of the planned trials have the user's target. The other half have targets around it, at round
fractions of the dense network first, so that the front covers sizes that users often ask for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...spaces.allocations.decode import PruningSpace
from ...spaces.cost.target import Target

DEFAULT_SPREAD = (0.5, 2.0)  # smallest and largest target, as factors of the user's
MIN_GRID_STEPS = 8  # grid steps between zero and the target, at least


@dataclass(frozen=True, slots=True)
class PlannedTrial:
    """One planned trial: its index in the plan and its target."""

    index: int
    target: Target


def make_plan(
    trials: int,
    target: Target,
    space: PruningSpace,
    *,
    spread: tuple[float, float] = DEFAULT_SPREAD,
) -> tuple[PlannedTrial, ...]:
    """Plan the trials: even indices have the target, odd ones targets around it."""
    dense = space.cost_model.dense
    limits = reachable_spread(target, space, spread)
    factors = order_coarse_first(target_factors(target, dense, limits))
    factors += order_coarse_first(target_factors(target, dense, limits, finer=2), known=factors)

    def target_of(index: int) -> Target:
        if index % 2 == 0:
            return target
        return target.scaled(factors[index // 2 % len(factors)], dense)

    return tuple(PlannedTrial(i, target_of(i)) for i in range(trials))


def target_factors(
    target: Target, dense: tuple[int, int], limits: tuple[float, float], *, finer: int = 1
) -> tuple[float, ...]:
    """Return the factors that turn the target's first size into round fractions, except 1."""
    part = target.first_fraction(dense)
    step = round_grid_step(part / MIN_GRID_STEPS) / finer
    first, last = (round(limit * part / step, 6) for limit in limits)
    fractions = [number * step for number in range(math.ceil(first), math.floor(last) + 1)]
    factors = [fraction / part for fraction in fractions if not math.isclose(fraction, part)]
    return tuple(factors) or (limits[1],)


def order_coarse_first(
    factors: tuple[float, ...], known: tuple[float, ...] = ()
) -> tuple[float, ...]:
    """Order factors so that each is farthest from 1 and from all factors before it.

    Even a few trials then cover the whole spread. Among equal distances, the smaller size comes
    first, because the front is steep there. Factors in `known` come before and are left out.
    """
    ordered, remaining = [1.0, *known], [factor for factor in factors if factor not in known]
    while remaining:
        gaps = {factor: min(abs(factor - one) for one in ordered) for factor in remaining}
        widest = max(remaining, key=lambda factor: (round(gaps[factor], 9), -factor))
        ordered.append(widest)
        remaining.remove(widest)
    return tuple(ordered[1 + len(known) :])


def round_grid_step(limit: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten that is at most the limit."""
    power = 10.0 ** math.floor(math.log10(limit))
    return max(digit * power for digit in (1, 2, 5) if digit * power <= limit * (1 + 1e-9))


def reachable_spread(
    target: Target, space: PruningSpace, spread: tuple[float, float] = DEFAULT_SPREAD
) -> tuple[float, float]:
    """Limit the spread to reachable targets whose first size is below the dense network's.

    A second size that a factor would raise above the dense network's is no restriction.
    """
    dense = space.cost_model.dense
    parts = [
        (part, minimum / whole)
        for part, minimum, whole in zip(
            target.fractions(dense), space.min_cost(), dense, strict=True
        )
        if part is not None
    ]
    low = max([spread[0], *(1.1 * reach / part for part, reach in parts)])
    high = min(spread[1], 0.95 / target.first_fraction(dense))
    return (low, high) if low < high else (1.0, 1.0)


def trial_seed(seed: int) -> int:
    """Return the seed that all trials of a search share.

    Trials then differ in their policies alone, and see the same batches in the same order, so the
    teacher's outputs can be reused.
    """
    return derive_seed(seed, 0)


def derive_seed(*parts: int) -> int:
    """Return a seed derived from several numbers, the same on every machine."""
    state = 0x9E3779B97F4A7C15
    for part in parts:
        state = ((state ^ (part & (2**64 - 1))) * 0xBF58476D1CE4E5B9 + 1) % 2**64
        state ^= state >> 29
    return state % 2**31
