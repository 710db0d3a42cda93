"""Batches decode as single policies; removal by current cost equals a plain loop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from map_cases import Case, Mask, cases, fits, plain_fill, plain_units
from numpy.typing import NDArray

from paretoprune.spaces.allocations.budget import Budget
from paretoprune.spaces.allocations.current_cost import CostDivision, rank_by_current_cost
from paretoprune.spaces.allocations.decode import PruningSpace, decode_policies, decode_policy
from paretoprune.spaces.allocations.fill import fill_masks
from paretoprune.spaces.allocations.units import Ranks, build_units, rank_by_score
from paretoprune.spaces.cost.cost import CostModel
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.errors import UserError
from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.spaces.policy.layer_scores import as_layer_scores
from paretoprune.spaces.policy.measurements import Measurements
from paretoprune.spaces.policy.policy import COMBINATIONS, NORMALISATIONS, Policy
from paretoprune.trainers.models.zoo.resnet import resnet20

POWERS = st.sampled_from([0.0, 0.3, 1.0])
BLENDS = st.sampled_from([0.0, 0.6, 1.0])


def distinct(case: Case) -> Case:
    """The same case without ties between scores."""
    return replace(case, scores=case.scores + 1e-3 * np.sqrt(np.arange(2, len(case.scores) + 2)))


def present_ranks(case: Case, power: float, blend: float, floor: int, step: int) -> Ranks:
    units = build_units(case.channel_map, floor, step)
    division = CostDivision(np.array([power]), np.array([blend]))
    limits = np.array([case.budget.limits])
    return rank_by_current_cost(case.scores[None], units, case.cost_model, division, limits)


def filled_at_present(
    case: Case, power: float, blend: float, floor: int = 1, step: int = 1
) -> Mask | None:
    rank, limits = present_ranks(case, power, blend, floor, step), np.array([case.budget.limits])
    single = build_units(case.channel_map, floor, step).are_single_atoms
    masks, reachable = fill_masks(rank, case.channel_map, case.cost_model, limits, single=single)
    return masks[0] if reachable[0] else None


def plain_present(case: Case, power: float, blend: float, floor: int, step: int) -> Mask | None:
    """Remove the head with the smallest score / cost^power, with costs recomputed each step."""
    units = plain_units(case, floor, step)
    mask, order = np.ones(len(case.scores), dtype=bool), []
    total = np.maximum(case.cost_model.marginal_costs(mask).sum(axis=0), 1)

    def blended(atom: int) -> float:
        less = mask.copy()
        less[atom] = False
        macs, params = (case.cost_model.cost_of(mask) - case.cost_model.cost_of(less)) / total
        return float((1 - blend) * macs + blend * params)

    mean = float(np.mean([blended(atom) for atom in range(len(mask))]))
    while any(units):
        ratios = []
        for group, own in enumerate(units):
            if own:
                scale = max(blended(own[0][0]) / max(mean, 1e-300), 1e-12) ** power
                score = float(case.scores[own[0]].mean())
                ratios.append((score * scale if score < 0 else score / scale, group))
        order.append(units[min(ratios)[1]].pop(0))
        mask[order[-1]] = False
    return plain_fill(case, order, group_waits=step > 1)


@settings(max_examples=300, deadline=None)
@given(cases(lowest=-3), POWERS, BLENDS, st.integers(1, 3), st.sampled_from([1, 1, 2, 3]))
def test_removal_by_current_cost_equals_a_plain_loop(
    case: Case, power: float, blend: float, floor: int, step: int
) -> None:
    case = distinct(case)
    found = filled_at_present(case, power, blend, floor, step)
    expected = plain_present(case, power, blend, floor, step)
    assert (found is None) == (expected is None)
    assert found is None or np.array_equal(found, expected)


@settings(max_examples=100, deadline=None)
@given(cases(lowest=-3), BLENDS, st.integers(1, 3))
def test_with_power_zero_the_current_cost_has_no_effect(
    case: Case, blend: float, floor: int
) -> None:
    case = replace(case, budget=Budget(0, 0))  # all units are removed
    static = rank_by_score(case.scores[None], build_units(case.channel_map, floor, 1))
    assert np.array_equal(present_ranks(case, 0.0, blend, floor, 1), static)


@settings(max_examples=100, deadline=None)
@given(cases(24, lowest=-3), POWERS, BLENDS)
def test_a_tighter_budget_continues_where_a_looser_one_stopped(
    case: Case, power: float, blend: float
) -> None:
    loose = present_ranks(case, power, blend, 1, 1)
    tight = present_ranks(replace(case, budget=Budget(0, 0)), power, blend, 1, 1)
    reached = loose < len(case.scores)
    assert np.array_equal(loose[reached], tight[reached])
    assert set(loose[reached]) == set(range(int(reached.sum())))


@settings(max_examples=150, deadline=None)
@given(cases(), st.sampled_from([0.0, 1.0, -np.inf, np.inf, None]), POWERS, st.booleans())
def test_equal_and_infinite_scores_still_give_a_maximal_mask_within_the_budget(
    case: Case, value: float | None, power: float, present: bool
) -> None:
    odd = np.array([-np.inf, 0.0, np.inf, 1e-320, -1e308])
    picked = odd[case.scores.astype(int)] if value is None else np.full_like(case.scores, value)
    case = replace(case, scores=picked)
    mask = filled_at_present(case, power, 0.5) if present else plain_or_none(case)
    lowest = [unit for own in plain_units(case, 1) for unit in own]
    smallest = np.ones(len(picked), dtype=bool)
    smallest[[atom for unit in lowest for atom in unit]] = False
    assert (mask is None) == (not fits(case, smallest))
    if mask is None:
        return
    assert fits(case, mask)
    assert np.unique(case.channel_map.group_of[mask]).size == len(case.channel_map.groups)
    for atom in np.flatnonzero(~mask):
        more = mask.copy()
        more[atom] = True
        assert not fits(case, more)


def plain_or_none(case: Case) -> Mask | None:
    rank = rank_by_score(case.scores[None], build_units(case.channel_map, 1, 1))
    limits = np.array([case.budget.limits])
    masks, reachable = fill_masks(rank, case.channel_map, case.cost_model, limits, single=True)
    return masks[0] if reachable[0] else None


@settings(max_examples=100, deadline=None)
@given(cases(24), st.booleans(), st.integers(0, 2**32 - 1))
def test_permuting_atoms_of_one_kind_permutes_the_mask(
    case: Case, present: bool, seed: int
) -> None:
    case = distinct(case)
    rng, renumbered = np.random.default_rng(seed), np.arange(len(case.scores))
    for kind in range(len(case.cost_model.atom_kinds.size)):
        own = np.flatnonzero(case.cost_model.atom_kinds.kind_of_atom == kind)
        renumbered[own] = rng.permutation(own)
    other = replace(case, scores=case.scores[renumbered])
    decoded = (
        filled_at_present(c, 1.0, 0.5) if present else plain_or_none(c) for c in (case, other)
    )
    one, two = decoded
    assert (one is None) == (two is None)
    assert one is None or two is None or np.array_equal(one[renumbered], two)


@pytest.fixture(scope="module")
def network() -> tuple[PruningSpace, Measurements]:
    channel_map = trace_channel_map(resnet20(), (3, 32, 32))
    rng = np.random.default_rng(0)
    scores = {name: as_layer_scores(rng.random(channel_map.atoms)) for name in ("one", "two")}
    return PruningSpace(channel_map, CostModel(channel_map)), Measurements("", scores)


def random_policies(count: int) -> list[Policy]:
    """Policies with random values of all fields."""
    rng = np.random.default_rng(1)
    return [
        Policy(
            score=str(rng.choice(["one", "two"])),
            combine=str(rng.choice(COMBINATIONS)),
            normalisation=str(rng.choice(NORMALISATIONS)),
            stages=tuple(rng.normal(size=2 * int(rng.integers(0, 4))).tolist()),
            price_power=float(rng.choice([0.0, 0.5, 1.0])),
            price_blend=float(rng.random()),
            price_at=str(rng.choice(["dense", "present"])),
            allocation=str(rng.choice(["global-threshold", "global-threshold", "uniform"])),
            floor=int(rng.integers(1, 5)),
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("round_to", [1, 4])
def test_a_batch_of_policies_decodes_as_each_policy_alone(
    network: tuple[PruningSpace, Measurements], round_to: int
) -> None:
    space, measurements = replace(network[0], round_to=round_to), network[1]
    policies = random_policies(60)
    shares = np.random.default_rng(2).uniform(0.15, 1.0, (60, 2)).round(3).tolist()
    targets = [Target(a, b if i % 2 else None) for i, (a, b) in enumerate(shares)]
    masks, reachable = decode_policies(policies, targets, measurements, space)
    assert reachable.all()
    for policy, target, mask in zip(policies, targets, masks, strict=True):
        assert np.array_equal(decode_policy(policy, target, measurements, space), mask)
        assert (
            space.cost_model.cost_of(mask) <= Budget(*target.limits(space.cost_model.dense)).limits
        ).all()


@pytest.mark.parametrize("price_at", ["dense", "present"])
def test_an_unreachable_target_is_reported_and_does_not_affect_other_policies(
    network: tuple[PruningSpace, Measurements], price_at: str
) -> None:
    space, measurements = network
    policies = [Policy("one", price_power=1.0, price_at=price_at, floor=f) for f in (1, 3, 2)]
    lowest = space.min_cost()[0]
    targets = [Target(lowest), Target(lowest - 1), Target(0.5)]
    masks, reachable = decode_policies(policies, targets, measurements, space)
    assert reachable.tolist() == [True, False, True]
    costs = space.cost_model.cost_of(masks)[:, 0]
    assert costs[:2].tolist() == [lowest, lowest]
    assert np.array_equal(masks[2], decode_policy(policies[2], targets[2], measurements, space))
    with pytest.raises(UserError, match=f"got {lowest - 1:,}"):
        decode_policy(policies[1], targets[1], measurements, space)


@pytest.mark.parametrize("price_at", ["dense", "present"])
def test_a_target_of_one_keeps_everything_and_no_policies_give_no_masks(
    network: tuple[PruningSpace, Measurements], price_at: str
) -> None:
    space, measurements = network
    policy = Policy("one", price_power=1.0, price_at=price_at)
    assert decode_policy(policy, Target(1.0, 1.0), measurements, space).all()
    masks, reachable = decode_policies([], [], measurements, space)
    assert masks.shape == (0, 448)
    assert reachable.shape == (0,)


def test_the_current_cost_changes_the_mask(
    network: tuple[PruningSpace, Measurements],
) -> None:
    space, measurements = network
    dense = Policy("one", price_power=1.0)
    masks, _ = decode_policies(
        [dense, replace(dense, price_at="present")], [Target(0.4)] * 2, measurements, space
    )
    assert not np.array_equal(*masks)


def test_nan_in_one_of_many_scores_raises_an_error_with_its_number(
    network: tuple[PruningSpace, Measurements],
) -> None:
    space, measurements = network
    scores: NDArray[np.float64] = np.zeros(448)
    scores[[4, 9]] = np.nan
    broken = replace(
        measurements, scores={**measurements.scores, "broken": as_layer_scores(scores)}
    )
    with pytest.raises(UserError, match="got NaN for 2 of 448 atoms"):
        decode_policies([Policy("one"), Policy("broken")], [Target(0.5)] * 2, broken, space)
