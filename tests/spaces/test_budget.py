"""Masks within a budget are feasible, maximal, nested, and equal to brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torchvision
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from map_cases import Case, Mask, cases, fits, plain_fill, plain_units

from paretoprune.spaces.allocations.budget import Budget, UnreachableBudgetError, fill_to_budget
from paretoprune.spaces.cost.cost import CostModel
from paretoprune.spaces.graph.channels import ChannelMap
from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.trainers.models.zoo.resnet import resnet20
from paretoprune.trainers.pruning.surgery import output_widths


def filled(case: Case, **options: int) -> Mask | None:
    try:
        return fill_to_budget(
            case.scores, case.cost_model, case.channel_map, case.budget, **options
        )
    except UnreachableBudgetError:
        return None


def plain(case: Case, floor: int, step: int = 1) -> Mask | None:
    """The reference: sort, remove one by one, add back one by one."""
    units = [unit for group in plain_units(case, floor, step) for unit in group]
    if step == 1:
        units.sort(key=min)
    units.sort(key=lambda unit: case.scores[unit].mean())
    return plain_fill(case, units, group_waits=step > 1)


@settings(max_examples=200, deadline=None)
@given(cases(), st.integers(1, 3), st.sampled_from([1, 1, 2, 4]))
def test_mask_equals_a_brute_force_loop(case: Case, floor: int, step: int) -> None:
    found, expected = filled(case, floor=floor, round_to=step), plain(case, floor, step)
    assert (found is None) == (expected is None)
    assert found is None or np.array_equal(found, expected)


@settings(max_examples=200, deadline=None)
@given(cases(), st.integers(1, 3))
def test_mask_is_feasible_keeps_the_floor_and_is_maximal(case: Case, floor: int) -> None:
    mask = filled(case, floor=floor)
    assume(mask is not None)
    assert fits(case, mask)
    kept = np.bincount(case.channel_map.group_of[mask], minlength=len(case.channel_map.groups))
    sizes = np.bincount(case.channel_map.group_of)
    assert (kept >= np.minimum(sizes, floor)).all()
    for atom in np.flatnonzero(~mask):
        more = mask.copy()
        more[atom] = True
        assert not fits(case, more)


@settings(max_examples=200, deadline=None)
@given(cases(24), st.integers(2, 4))
def test_rounded_widths_are_multiples_or_dense_and_none_can_grow(case: Case, step: int) -> None:
    mask = filled(case, round_to=step)
    assume(mask is not None)
    assert fits(case, mask)
    for group in range(len(case.channel_map.groups)):
        members = np.flatnonzero(case.channel_map.group_of == group)
        order = members[np.argsort(case.scores[members], kind="stable")]
        width = int(mask[members].sum())
        assert width == len(members) or (width % step == 0 and width > 0)
        assert mask[order[len(members) - width :]].all()
        if width < len(members):
            more = mask.copy()
            more[order[max(0, len(members) - width - step) :]] = True
            assert not fits(case, more)


@settings(max_examples=100, deadline=None)
@given(cases(), st.floats(0.2, 1.0))
def test_without_a_budget_nothing_is_removed(case: Case, share: float) -> None:
    free = fill_to_budget(case.scores, case.cost_model, case.channel_map, Budget())
    assert free.all()
    dense = Budget(*case.cost_model.dense)
    assert fill_to_budget(case.scores, case.cost_model, case.channel_map, dense).all()


@pytest.fixture(scope="module")
def resnet() -> tuple[ChannelMap, CostModel]:
    channel_map = trace_channel_map(resnet20(), (3, 32, 32))
    return channel_map, CostModel(channel_map)


@pytest.mark.parametrize("share", [0.1, 0.4, 0.77])
@pytest.mark.parametrize("round_to", [1, 4])
def test_the_cost_of_a_pruned_resnet_is_just_below_the_target(
    resnet: tuple[ChannelMap, CostModel], share: float, round_to: int
) -> None:
    channel_map, cost_model = resnet
    limit = int(cost_model.dense[0] * share)
    scores = np.random.default_rng(0).random(channel_map.atoms)
    mask = fill_to_budget(scores, cost_model, channel_map, Budget(limit), round_to=round_to)
    assert limit * (0.99 if round_to == 1 else 0.97) < cost_model.cost_of(mask)[0] <= limit


@pytest.mark.parametrize("name", ["regnet_x_400mf", "mobilenet_v2", "shufflenet_v2_x1_0"])
def test_rounded_widths_of_every_layer_are_multiples_or_dense(name: str) -> None:
    model = torchvision.models.get_model(name, weights=None).eval()
    channel_map = trace_channel_map(model, (3, 64, 64))
    cost_model, scores = CostModel(channel_map), np.random.default_rng(0).random(channel_map.atoms)
    budget = Budget(cost_model.dense[0] // 2)
    mask = fill_to_budget(scores, cost_model, channel_map, budget, round_to=8)
    dense = output_widths(channel_map, np.ones(channel_map.atoms, dtype=bool))
    for layer, width in output_widths(channel_map, mask).items():
        assert width == dense[layer] or width % 8 == 0, layer
    assert 0.9 * budget.macs < cost_model.cost_of(mask)[0] <= budget.macs


def test_the_same_scores_give_the_same_mask(resnet: tuple[ChannelMap, CostModel]) -> None:
    channel_map, cost_model = resnet
    scores = np.zeros(channel_map.atoms)
    one, other = (
        fill_to_budget(scores, cost_model, channel_map, Budget(cost_model.dense[0] // 2))
        for _ in range(2)
    )
    assert np.array_equal(one, other)


def test_a_network_without_atoms_has_the_empty_mask() -> None:
    none = np.zeros(0, dtype=np.int32)
    channel_map = ChannelMap((), (), none, (), (1,), fixed_macs=5)
    cost_model = CostModel(channel_map)
    assert fill_to_budget(np.zeros(0), cost_model, channel_map, Budget(5)).shape == (0,)
    with pytest.raises(UnreachableBudgetError, match="got 4"):
        fill_to_budget(np.zeros(0), cost_model, channel_map, Budget(4))


def test_infinite_scores_are_removed_first_and_last(resnet: tuple[ChannelMap, CostModel]) -> None:
    channel_map, cost_model = resnet
    scores = np.random.default_rng(0).random(channel_map.atoms)
    scores[3], scores[5] = np.inf, -np.inf
    mask = fill_to_budget(scores, cost_model, channel_map, Budget(cost_model.dense[0] // 3))
    assert mask[3]
    assert not mask[5]


def test_nan_scores_raise_an_error_with_their_number(
    resnet: tuple[ChannelMap, CostModel],
) -> None:
    channel_map, cost_model = resnet
    scores = np.zeros(channel_map.atoms)
    scores[:2] = np.nan
    with pytest.raises(ValueError, match="got NaN for 2 of 448 atoms"):
        fill_to_budget(scores, cost_model, channel_map, Budget(10))


def test_the_error_for_an_unreachable_budget_states_the_lowest_cost_and_its_causes(
    resnet: tuple[ChannelMap, CostModel],
) -> None:
    channel_map, cost_model = resnet
    with pytest.raises(UnreachableBudgetError) as caught:
        fill_to_budget(
            np.zeros(channel_map.atoms), cost_model, channel_map, Budget(1000), floor=2, round_to=4
        )
    text = str(caught.value)
    assert "\n" not in text
    for part in ("macs cannot go below", "got 1,000", "keeps 2 atoms", "multiples of 4"):
        assert part in text
    assert "10 channels are protected (the first in linear: output of the network)" in text


@pytest.mark.parametrize("options", [{"floor": 0}, {"round_to": 0}, {"floor": -3}])
def test_floor_and_rounding_below_one_raise_an_error(
    resnet: tuple[ChannelMap, CostModel], options: dict[str, int]
) -> None:
    channel_map, cost_model = resnet
    with pytest.raises(ValueError, match="must be at least 1"):
        fill_to_budget(np.zeros(448), cost_model, channel_map, Budget(10), **options)
