"""The plan: how many trials, and which target each of them aims at. A function of the settings.

A slot is one planned trial. Half of the slots aim at the user's target, the other half are spread
around it, so that the front is a curve and the answer at the target is strong.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..spaces.decode import Space
from ..spaces.target import Target

GOLDEN = 0.6180339887498949  # its multiples mod 1 are spread evenly, whatever their number
SPREAD = (0.5, 2.0)  # factors of the target


@dataclass(frozen=True, slots=True)
class Slot:
    """One planned trial."""

    index: int
    target: Target
    seed: int


def make_plan(
    trials: int,
    target: Target,
    space: Space,
    *,
    seed: int,
    spread: tuple[float, float] = SPREAD,
) -> tuple[Slot, ...]:
    """`trials` slots: even ones at the target, odd ones spread."""
    between = spread_of(target, space, spread)
    return tuple(
        Slot(
            index,
            target_of(index, target, space.price.dense, between),
            derived_seed(seed, index),
        )
        for index in range(trials)
    )


def target_of(
    index: int, target: Target, dense: tuple[int, int], between: tuple[float, float]
) -> Target:
    """The user's target for even slots, a scaled one for odd ones."""
    if index % 2 == 0:
        return target
    low, high = between
    step = (GOLDEN * ((index + 1) // 2)) % 1.0
    factor = low * (high / low) ** step
    return target.scaled(round(factor, 4), dense)


def spread_of(
    target: Target, space: Space, spread: tuple[float, float] = SPREAD
) -> tuple[float, float]:
    """The factors between which every part of the target is reachable and below the dense size."""
    dense = space.price.dense
    lowest = space.lowest()
    parts = [
        (part, small / whole)
        for part, small, whole in zip(target.fractions(dense), lowest, dense, strict=True)
        if part is not None
    ]
    low = max([spread[0], *(1.1 * reach / part for part, reach in parts)])
    high = min([spread[1], *(0.95 / part for part, _ in parts)])
    return (low, high) if low < high else (1.0, 1.0)


def derived_seed(*parts: int) -> int:
    """A seed from several numbers, the same on every machine."""
    state = 0x9E3779B97F4A7C15
    for part in parts:
        state = ((state ^ (part & (2**64 - 1))) * 0xBF58476D1CE4E5B9 + 1) % 2**64
        state ^= state >> 29
    return state % 2**31
