"""Decoding: many policies as one by one, prices at the present mask as a plain loop has them."""

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
    return rank_by_current_cost(case.scores[None], units, case.price, division, limits)


def filled_at_present(
    case: Case, power: float, blend: float, floor: int = 1, step: int = 1
) -> Mask | None:
    rank, limits = present_ranks(case, power, blend, floor, step), np.array([case.budget.limits])
    single = build_units(case.channel_map, floor, step).are_single_atoms
    masks, reachable = fill_masks(rank, case.channel_map, case.price, limits, single=single)
    return masks[0] if reachable[0] else None


def plain_present(case: Case, power: float, blend: float, floor: int, step: int) -> Mask | None:
    """Take the head with the least score / price^power, the price always measured anew."""
    units = plain_units(case, floor, step)
    mask, order = np.ones(len(case.scores), dtype=bool), []
    total = np.maximum(case.price.marginal_costs(mask).sum(axis=0), 1)

    def blended(atom: int) -> float:
        less = mask.copy()
        less[atom] = False
        macs, params = (case.price.cost_of(mask) - case.price.cost_of(less)) / total
        return float((1 - blend) * macs + blend * params)

    mean = float(np.mean([blended(atom) for atom in range(len(mask))]))
    while any(units):
        ratios = []
        for group, own in enumerate(units):
            if own:
                scale = max(blended(own[0][0]) / max(mean, 1e-300), 1e-12) ** power
                worth = float(case.scores[own[0]].mean())
                ratios.append((worth * scale if worth < 0 else worth / scale, group))
        order.append(units[min(ratios)[1]].pop(0))
        mask[order[-1]] = False
    return plain_fill(case, order, group_waits=step > 1)


@settings(max_examples=300, deadline=None)
@given(cases(lowest=-3), POWERS, BLENDS, st.integers(1, 3), st.sampled_from([1, 1, 2, 3]))
def test_prices_at_present_equal_the_plain_loop(
    case: Case, power: float, blend: float, floor: int, step: int
) -> None:
    case = distinct(case)
    found = filled_at_present(case, power, blend, floor, step)
    expected = plain_present(case, power, blend, floor, step)
    assert (found is None) == (expected is None)
    assert found is None or np.array_equal(found, expected)


@settings(max_examples=100, deadline=None)
@given(cases(lowest=-3), BLENDS, st.integers(1, 3))
def test_without_power_the_present_price_changes_nothing(
    case: Case, blend: float, floor: int
) -> None:
    case = replace(case, budget=Budget(0, 0))  # all units go
    static = rank_by_score(case.scores[None], build_units(case.channel_map, floor, 1))
    assert np.array_equal(present_ranks(case, 0.0, blend, floor, 1), static)


@settings(max_examples=100, deadline=None)
@given(cases(24, lowest=-3), POWERS, BLENDS)
def test_a_tighter_budget_goes_on_where_a_looser_one_stopped(
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
    masks, reachable = fill_masks(rank, case.channel_map, case.price, limits, single=True)
    return masks[0] if reachable[0] else None


@settings(max_examples=100, deadline=None)
@given(cases(24), st.booleans(), st.integers(0, 2**32 - 1))
def test_renumbering_atoms_of_one_kind_renumbers_the_mask(
    case: Case, present: bool, seed: int
) -> None:
    case = distinct(case)
    rng, renumbered = np.random.default_rng(seed), np.arange(len(case.scores))
    for kind in range(len(case.price.atom_kinds.size)):
        own = np.flatnonzero(case.price.atom_kinds.kind_of_atom == kind)
        renumbered[own] = rng.permutation(own)
    other = replace(case, scores=case.scores[renumbered])
    decoded = (
        filled_at_present(c, 1.0, 0.5) if present else plain_or_none(c) for c in (case, other)
    )
    one, two = decoded
    assert (one is None) == (two is None)
    assert one is None or two is None or np.array_equal(one[renumbered], two)


@pytest.fixture(scope="module")
def scene() -> tuple[PruningSpace, Measurements]:
    channel_map = trace_channel_map(resnet20(), (3, 32, 32))
    rng = np.random.default_rng(0)
    scores = {name: as_layer_scores(rng.random(channel_map.atoms)) for name in ("one", "two")}
    return PruningSpace(channel_map, CostModel(channel_map)), Measurements("", scores)


def random_policies(count: int) -> list[Policy]:
    """All parts of the space, mixed."""
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
def test_many_policies_decode_as_each_alone(
    scene: tuple[PruningSpace, Measurements], round_to: int
) -> None:
    space, evidence = replace(scene[0], round_to=round_to), scene[1]
    policies = random_policies(60)
    shares = np.random.default_rng(2).uniform(0.15, 1.0, (60, 2)).round(3).tolist()
    targets = [Target(a, b if i % 2 else None) for i, (a, b) in enumerate(shares)]
    masks, reachable = decode_policies(policies, targets, evidence, space)
    assert reachable.all()
    for policy, target, mask in zip(policies, targets, masks, strict=True):
        assert np.array_equal(decode_policy(policy, target, evidence, space), mask)
        assert (
            space.cost_model.cost_of(mask) <= Budget(*target.limits(space.cost_model.dense)).limits
        ).all()


@pytest.mark.parametrize("price_at", ["dense", "present"])
def test_a_target_out_of_reach_is_reported_and_leaves_the_others_alone(
    scene: tuple[PruningSpace, Measurements], price_at: str
) -> None:
    space, evidence = scene
    policies = [Policy("one", price_power=1.0, price_at=price_at, floor=f) for f in (1, 3, 2)]
    lowest = space.min_cost()[0]
    targets = [Target(lowest), Target(lowest - 1), Target(0.5)]
    masks, reachable = decode_policies(policies, targets, evidence, space)
    assert reachable.tolist() == [True, False, True]
    prices = space.cost_model.cost_of(masks)[:, 0]
    assert prices[:2].tolist() == [lowest, lowest]
    assert np.array_equal(masks[2], decode_policy(policies[2], targets[2], evidence, space))
    with pytest.raises(UserError, match=f"got {lowest - 1:,}"):
        decode_policy(policies[1], targets[1], evidence, space)


@pytest.mark.parametrize("price_at", ["dense", "present"])
def test_a_whole_target_keeps_everything_and_no_policies_give_no_masks(
    scene: tuple[PruningSpace, Measurements], price_at: str
) -> None:
    space, evidence = scene
    policy = Policy("one", price_power=1.0, price_at=price_at)
    assert decode_policy(policy, Target(1.0, 1.0), evidence, space).all()
    masks, reachable = decode_policies([], [], evidence, space)
    assert masks.shape == (0, 448)
    assert reachable.shape == (0,)


def test_the_present_price_is_a_choice_that_changes_the_mask(
    scene: tuple[PruningSpace, Measurements],
) -> None:
    space, evidence = scene
    dense = Policy("one", price_power=1.0)
    masks, _ = decode_policies(
        [dense, replace(dense, price_at="present")], [Target(0.4)] * 2, evidence, space
    )
    assert not np.array_equal(*masks)


def test_nan_among_many_is_refused_with_its_number(
    scene: tuple[PruningSpace, Measurements],
) -> None:
    space, evidence = scene
    scores: NDArray[np.float64] = np.zeros(448)
    scores[[4, 9]] = np.nan
    broken = replace(evidence, scores={**evidence.scores, "broken": as_layer_scores(scores)})
    with pytest.raises(UserError, match="got NaN for 2 of 448 atoms"):
        decode_policies([Policy("one"), Policy("broken")], [Target(0.5)] * 2, broken, space)
