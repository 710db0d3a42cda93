"""The plan: how many trials, and which target each of them aims at. A function of the settings.

A slot is one planned trial. Half of the slots aim at the user's target, the other half are spread
over round shares of the dense network around it, so that the front is a curve, the answer at the
target is strong, and so is the one at other sizes that people ask for; then over those between.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...spaces.allocations.decode import Space
from ...spaces.cost.target import Target

SPREAD = (0.5, 2.0)  # factors of the target
STEPS = 8  # at least, of round shares between nothing and the target


@dataclass(frozen=True, slots=True)
class Slot:
    """One planned trial."""

    index: int
    target: Target


def make_plan(
    trials: int,
    target: Target,
    space: Space,
    *,
    spread: tuple[float, float] = SPREAD,
) -> tuple[Slot, ...]:
    """`trials` slots: even ones at the target, odd ones spread."""
    dense = space.price.dense
    between = spread_of(target, space, spread)
    factors = coarse_first(factors_of(target, dense, between))
    factors += coarse_first(factors_of(target, dense, between, finer=2), known=factors)

    def target_of(index: int) -> Target:
        if index % 2 == 0:
            return target
        return target.scaled(factors[index // 2 % len(factors)], dense)

    return tuple(Slot(i, target_of(i)) for i in range(trials))


def factors_of(
    target: Target, dense: tuple[int, int], between: tuple[float, float], *, finer: int = 1
) -> tuple[float, ...]:
    """What makes round shares of the target's first part, the target itself left out."""
    part = target.leading(dense)
    grain = grain_of(part / STEPS) / finer
    first, last = (round(bound * part / grain, 6) for bound in between)
    shares = [number * grain for number in range(math.ceil(first), math.floor(last) + 1)]
    around = [share / part for share in shares if not math.isclose(share, part)]
    return tuple(around) or (between[1],)


def coarse_first(factors: tuple[float, ...], known: tuple[float, ...] = ()) -> tuple[float, ...]:
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


def grain_of(most: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is at most this."""
    power = 10.0 ** math.floor(math.log10(most))
    return max(digit * power for digit in (1, 2, 5) if digit * power <= most * (1 + 1e-9))


def spread_of(
    target: Target, space: Space, spread: tuple[float, float] = SPREAD
) -> tuple[float, float]:
    """The factors between which the target is reachable and its first part below the dense size.

    A second part that the factor would take beyond the dense size asks for nothing there.
    """
    dense = space.price.dense
    parts = [
        (part, small / whole)
        for part, small, whole in zip(target.fractions(dense), space.lowest(), dense, strict=True)
        if part is not None
    ]
    low = max([spread[0], *(1.1 * reach / part for part, reach in parts)])
    high = min(spread[1], 0.95 / target.leading(dense))
    return (low, high) if low < high else (1.0, 1.0)


def seed_of_trials(seed: int) -> int:
    """One for all trials of a search: they differ in their policies alone, see the same batches in
    the same order, and a teacher need not look at a batch twice.
    """
    return derived_seed(seed, 0)


def derived_seed(*parts: int) -> int:
    """A seed from several numbers, the same on every machine."""
    state = 0x9E3779B97F4A7C15
    for part in parts:
        state = ((state ^ (part & (2**64 - 1))) * 0xBF58476D1CE4E5B9 + 1) % 2**64
        state ^= state >> 29
    return state % 2**31
