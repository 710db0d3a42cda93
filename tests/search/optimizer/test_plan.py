"""The plan: half of the trials at the target, the others at round fractions around it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretoprune.search.optimizer.plan import (
    DEFAULT_SPREAD,
    PlannedTrial,
    order_coarse_first,
    round_grid_step,
    target_factors,
)
from paretoprune.search.optimizer.proposer import PROPOSAL_CYCLE, assign_strategies
from paretoprune.spaces.cost.target import Target

DENSE = (41_000_000, 270_000)


def shares(target: Target, between: tuple[float, float] = DEFAULT_SPREAD) -> list[float]:
    """The FLOPs, or the params, of the targets around the target."""
    scaled = [target.scaled(f, DENSE) for f in target_factors(target, DENSE, between)]
    return [next(p for p in one.fractions(DENSE) if p is not None) for one in scaled]


def test_the_targets_around_a_target_are_round_fractions():
    """At 0.4 they are the multiples of 0.05 from half of it to twice, without the target."""
    around = [0.2, 0.25, 0.3, 0.35, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8]
    assert shares(Target(flops=0.4)) == around
    assert shares(Target(params=0.4)) == around


def test_a_second_size_is_scaled_by_the_same_factor():
    """Params keep their ratio to the FLOPs."""
    target = Target(flops=0.5, params=0.3)
    for factor in target_factors(target, DENSE, (0.5, 1.5)):
        flops, params = target.scaled(factor, DENSE).fractions(DENSE)
        assert params == pytest.approx(0.6 * flops)


@given(st.floats(1e-4, 1.0), st.floats(0.2, 1.0), st.floats(1.0, 3.0))
def test_all_sizes_lie_in_the_range(part, low, high):
    """For any target and range there is a factor, and none lies outside."""
    found = target_factors(Target(flops=part), DENSE, (low, high))
    assert found
    assert all(low * (1 - 1e-5) <= factor <= high * (1 + 1e-5) for factor in found)


def test_the_ends_of_the_range_are_tried_first_then_the_widest_gaps():
    """So a few trials cover the whole range."""
    factors = target_factors(Target(flops=0.4), DENSE, DEFAULT_SPREAD)
    ordered = [round(0.4 * factor, 6) for factor in order_coarse_first(factors)]
    assert ordered == [0.8, 0.2, 0.6, 0.3, 0.5, 0.7, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75]


def test_sizes_between_the_round_ones_come_after_them():
    """Each comes once, and the round ones are not repeated."""
    known = order_coarse_first(target_factors(Target(flops=0.4), DENSE, DEFAULT_SPREAD))
    between = order_coarse_first(
        target_factors(Target(flops=0.4), DENSE, DEFAULT_SPREAD, finer=2), known
    )
    assert [round(0.4 * factor, 6) for factor in between[:3]] == [0.225, 0.275, 0.325]
    assert len(between) == 12
    assert not set(between) & {1.0, *known}


@given(st.floats(1e-6, 1e3))
def test_a_grid_step_is_round(most):
    """1, 2 or 5 times a power of ten, and at least 0.4 of what is allowed."""
    step = round_grid_step(most)
    assert 0.399 * most <= step <= most * (1 + 1e-8)
    assert f"{step:.0e}"[0] in "125"
    assert float(f"{step:.0e}") == pytest.approx(step)


def test_strategies_begin_with_screening_and_cycle():
    """For any indices of the planned trials."""
    planned = [PlannedTrial(index, Target(flops=0.4)) for index in range(12, 40, 2)]
    strategies = list(assign_strategies(planned).values())
    assert strategies[0] == "screened"
    assert (
        strategies[: len(PROPOSAL_CYCLE)]
        == strategies[len(PROPOSAL_CYCLE) : 2 * len(PROPOSAL_CYCLE)]
        == list(PROPOSAL_CYCLE)
    )
    assert list(assign_strategies(planned)) == [slot.index for slot in planned]
