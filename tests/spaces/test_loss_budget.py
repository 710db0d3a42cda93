"""Cuts by loss curves are exact for a known loss, nested, within the target, of least sum."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from paretoprune.analysis.loss_curves.measure import CurveMeasurement
from paretoprune.analysis.loss_curves.probe_log import ProbeLog
from paretoprune.spaces.allocations.budget import UnreachableBudgetError
from paretoprune.spaces.allocations.decode import PruningSpace, decode_policies, decode_policy
from paretoprune.spaces.allocations.loss_budget import (
    implied_threshold,
    mask_under_threshold,
    predicted_loss,
    removal_order_by_loss,
    removed_counts_under_threshold,
)
from paretoprune.spaces.cost.cost import CostModel
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.errors import UserError
from paretoprune.spaces.graph.channels import ChannelMap, Group, Layer
from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.spaces.policy.layer_scores import as_layer_scores
from paretoprune.spaces.policy.loss_curves import (
    CurveSettings,
    LossCurves,
    curves_from_arrays,
    curves_name,
    curves_to_arrays,
    isotonic_regression,
    removal_positions,
)
from paretoprune.spaces.policy.measurements import Measurements
from paretoprune.spaces.policy.policy import POLICY_PRESETS, Policy, policy_from_json
from paretoprune.trainers.models.zoo.resnet import resnet56

SIZES = (16, 8, 5, 1)
FACTORS = (0.01, 0.04, 0.02, 1.0)  # removing k atoms of group g raises the loss by FACTORS[g] * k
BUDGET = Policy("taylor", allocation="loss-budget")
DENSE = CurveSettings(points=16, refine=0)


def chain(sizes: tuple[int, ...], costs: tuple[int, ...] = (9, 4, 1, 2)) -> ChannelMap:
    """Groups that share no layer: the cost of each is linear in its kept atoms."""
    starts = np.cumsum([0, *sizes])
    sides = [np.arange(a, b, dtype=np.int32) for a, b in pairwise(starts)]
    fixed = np.full(2, -1, dtype=np.int32)
    layers = [
        Layer(f"l{i}", "conv", side, fixed, 1, cost, 2)
        for i, (side, cost) in enumerate(zip(sides, costs, strict=False))
    ]
    groups = tuple(Group(f"l{i}", (f"l{i}",)) for i in range(len(sizes)))
    group_of = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    return ChannelMap(tuple(layers), groups, group_of, (), (1,))


class Additive:
    """A loss that is a sum over groups of a function of removed atoms; it counts its calls."""

    def __init__(self, channel_map: ChannelMap, of_group=None) -> None:
        self.channel_map, self.calls = channel_map, 0
        self.of_group = of_group or (lambda group, removed: FACTORS[group] * removed)

    def __call__(self, group: int, masks: list[NDArray[np.bool_]]) -> list[float]:
        self.calls += len(masks)
        groups = range(len(self.channel_map.groups))
        gone = [np.bincount(self.channel_map.group_of[~m], minlength=len(groups)) for m in masks]
        return [2.0 + sum(self.of_group(g, int(k[g])) for g in groups) for k in gone]


def probe(
    loss: Additive, how: CurveSettings, order: NDArray[np.float64] | None = None
) -> LossCurves:
    channel_map = loss.channel_map
    order = np.arange(channel_map.atoms, dtype=float) if order is None else order
    around = np.ones(channel_map.atoms, dtype=bool)
    place = removal_positions(order, channel_map)
    probing = CurveMeasurement(channel_map, place, around, how, loss, ProbeLog(None))
    return probing.run(range(len(channel_map.groups)))


@pytest.fixture(scope="module")
def network() -> tuple[ChannelMap, CostModel, LossCurves]:
    channel_map = chain(SIZES)
    return channel_map, CostModel(channel_map), probe(Additive(channel_map), DENSE)


@pytest.mark.parametrize("threshold", [0.0, 0.009, 0.0201, 0.055, 0.1001, 5.0])
@pytest.mark.parametrize("points", [2, 5, 16])
def test_a_known_additive_loss_is_cut_exactly(threshold: float, points: int) -> None:
    channel_map = chain(SIZES)
    curves = probe(Additive(channel_map), CurveSettings(points=points, refine=1))
    policy = replace(BUDGET, threshold=threshold)
    exact = [min(int(threshold / f), n - 1) for f, n in zip(FACTORS, SIZES, strict=True)]
    assert removed_counts_under_threshold(policy, curves, channel_map).tolist() == exact
    mask = mask_under_threshold(policy, curves, CostModel(channel_map), channel_map)
    gone = np.bincount(channel_map.group_of[~mask], minlength=len(SIZES))
    assert gone.tolist() == exact
    assert predicted_loss(mask, curves, channel_map) == pytest.approx(
        2 + sum(f * k for f, k in zip(FACTORS, exact, strict=True))
    )


def test_the_papers_bisection_of_a_resnet56_takes_150_evaluations() -> None:
    channel_map = trace_channel_map(resnet56(), (3, 32, 32))
    loss = Additive(channel_map, lambda group, removed: 0.003 * removed)
    curves = probe(loss, CurveSettings(method="paper", threshold=0.019))
    assert len(channel_map.groups) == 30
    assert len(curves.rise) == 150
    assert loss.calls == 151  # plus the loss of the original network
    policy = replace(BUDGET, threshold=0.019)
    assert set(removed_counts_under_threshold(policy, curves, channel_map).tolist()) == {6}


@pytest.mark.parametrize("size", range(1, 40))
def test_bisection_takes_log2_of_the_size_evaluations(size: int) -> None:
    channel_map = chain((size,))
    loss = Additive(channel_map)
    curves = probe(loss, CurveSettings(method="paper", threshold=0.055))
    assert loss.calls - 1 == len(curves.rise) == size.bit_length() - 1
    if size.bit_count() == 1:  # a power of two, where the bisection reaches every cut
        policy = replace(BUDGET, threshold=0.055)
        assert removed_counts_under_threshold(policy, curves, channel_map)[0] == min(5, size - 1)


@pytest.mark.parametrize("method", ["paper", "curve"])
def test_cached_curves_give_the_masks_of_fresh_probes(method: str) -> None:
    channel_map, rng = chain(SIZES), np.random.default_rng(0)
    rises = [np.sort(rng.random(size)) - 0.1 for size in SIZES]  # not monotone in absolute value
    loss = Additive(channel_map, lambda group, k: rises[group][k] - rises[group][0])
    for threshold in (0.05, 0.2, 0.5):
        how = CurveSettings(method=method, points=16, refine=0, threshold=threshold)
        fresh = probe(loss, how)
        cached = curves_from_arrays(curves_to_arrays(fresh))
        policy, cost_model = replace(BUDGET, threshold=threshold), CostModel(channel_map)
        masks = [mask_under_threshold(policy, c, cost_model, channel_map) for c in (fresh, cached)]
        assert np.array_equal(*masks)
        assert cached.settings == how
        best = [int((abs(r - r[0]) <= threshold).sum()) - 1 for r in rises[:2]]  # powers of two
        assert removed_counts_under_threshold(policy, cached, channel_map)[:2].tolist() == best


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 9), min_size=1, max_size=12))
def test_isotonic_is_the_least_squares_fit(values: list[float]) -> None:
    expected = IsotonicRegression().fit_transform(np.arange(len(values)), values)
    np.testing.assert_allclose(isotonic_regression(np.array(values)), expected, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.floats(0, 1), min_size=8, max_size=8), min_size=3, max_size=3),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(1, 4),
)
def test_a_higher_threshold_removes_all_that_a_lower_one_does(
    rises: list[list[float]], one: float, other: float, round_to: int
) -> None:
    channel_map = chain((8, 8, 8))
    curves = probe(Additive(channel_map, lambda g, k: rises[g][k] * (k > 0)), DENSE)
    cost_model = CostModel(channel_map)
    low, high = (
        mask_under_threshold(
            replace(BUDGET, threshold=t), curves, cost_model, channel_map, round_to=round_to
        )
        for t in sorted((one, other))
    )
    assert not (high & ~low).any()


def measurements_of(curves: LossCurves, policy: Policy) -> Measurements:
    name = curves_name(policy.score, policy.combine, policy.probe)
    scores = {policy.score: as_layer_scores(np.zeros(len(curves.place)))}
    return Measurements("", scores, curves={name: curves})


@pytest.mark.parametrize("way", ["threshold", "least-sum"])
@pytest.mark.parametrize("target", [Target(0.8), Target(0.4), Target(None, 0.5), Target(0.6, 0.4)])
def test_the_solved_cut_is_feasible_and_maximal(network, way: str, target: Target) -> None:
    channel_map, cost_model, curves = network
    policy = replace(POLICY_PRESETS["balanced-pruning"], curves=way)
    keep = decode_policy(
        policy, target, measurements_of(curves, policy), PruningSpace(channel_map, cost_model)
    )
    limits = [limit or 10**9 for limit in target.limits(cost_model.dense)]
    assert (cost_model.cost_of(keep) <= limits).all()
    for atom in np.flatnonzero(~keep):
        more = keep.copy()
        more[atom] = True
        assert (cost_model.cost_of(more) > limits).any()


def test_the_solved_threshold_is_the_least_that_meets_the_target(network) -> None:
    channel_map, cost_model, curves = network
    keep = decode_policy(
        BUDGET, Target(0.5), measurements_of(curves, BUDGET), PruningSpace(channel_map, cost_model)
    )
    threshold = implied_threshold(keep, curves, channel_map)
    under = mask_under_threshold(
        replace(BUDGET, threshold=threshold), curves, cost_model, channel_map
    )
    below = replace(BUDGET, threshold=threshold * (1 - 1e-9) - 1e-9)
    above = mask_under_threshold(below, curves, cost_model, channel_map)
    assert cost_model.cost_of(under)[0] <= 0.5 * cost_model.dense[0] < cost_model.cost_of(above)[0]


def test_a_given_threshold_cuts_beyond_the_target_and_no_less(network) -> None:
    channel_map, cost_model, curves = network
    space, measurements = PruningSpace(channel_map, cost_model), measurements_of(curves, BUDGET)
    loose, tight = (replace(BUDGET, threshold=t) for t in (1e-6, 0.1))
    assert np.array_equal(
        decode_policy(tight, Target(0.95), measurements, space),
        mask_under_threshold(tight, curves, cost_model, channel_map),
    )
    assert np.array_equal(
        decode_policy(loose, Target(0.5), measurements, space),
        decode_policy(BUDGET, Target(0.5), measurements, space),
    )


def test_policies_decoded_together_are_those_decoded_alone(network) -> None:
    channel_map, cost_model, curves = network
    scores = {"taylor": as_layer_scores(np.random.default_rng(0).random(channel_map.atoms))}
    measurements = Measurements("", scores, curves={"taylor": curves})
    policies = [
        Policy("taylor", price_power=1.0, price_at="present"),
        BUDGET,
        replace(BUDGET, curves="least-sum", floor=2),
        replace(BUDGET, threshold=0.1, price_power=1.0, price_at="present"),
        replace(BUDGET, stages=(3.0, 0.0)),
        Policy("taylor", allocation="uniform"),
    ]
    targets = [Target(share) for share in (0.5, 0.4, 0.3, 0.9, 0.6, 0.7)]
    space = PruningSpace(channel_map, cost_model)
    masks, reachable = decode_policies(policies, targets, measurements, space)
    assert reachable.all()
    for mask, policy, target in zip(masks, policies, targets, strict=True):
        assert np.array_equal(mask, decode_policy(policy, target, measurements, space))


@settings(max_examples=50, deadline=None)
@given(st.floats(0.01, 1), st.integers(2, 30), st.integers(0, 99))
def test_groups_keep_their_order_where_curves_are_linear(
    factor: float, size: int, seed: int
) -> None:
    channel_map = chain((size, size))
    order = np.random.default_rng(seed).random(2 * size)
    curves = probe(Additive(channel_map, lambda g, k: factor * k / 3), DENSE, order)
    places = removal_order_by_loss(
        replace(BUDGET, curves="least-sum"), curves, CostModel(channel_map), channel_map
    )
    for group in range(2):
        own = channel_map.group_of == group
        assert np.array_equal(np.argsort(places[own]), np.argsort(curves.place[own]))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_no_cheaper_mask_has_a_lower_sum_than_least_sum(seed: int) -> None:
    rng, sizes = np.random.default_rng(seed), (5, 4, 4)
    channel_map = chain(sizes)
    cost_model = CostModel(channel_map)
    rises = [np.cumsum(np.sort(rng.random(size))) for size in sizes]  # convex: every cut on a hull
    rises = [rise - rise[0] for rise in rises]
    curves = probe(Additive(channel_map, lambda g, k: float(rises[g][k])), DENSE)
    order = removal_order_by_loss(
        replace(BUDGET, curves="least-sum"), curves, cost_model, channel_map
    )
    everything = [
        (cost_model.cost_of(curves.place > np.array(cut)[channel_map.group_of])[0], cut)
        for cut in product(*(range(size) for size in sizes))
    ]
    for removed in range(1, sum(sizes) - len(sizes) + 1):
        mask = order >= removed
        cost = cost_model.cost_of(mask)[0]
        best = min(sum(r[k] for r, k in zip(rises, cut, strict=True))
                   for macs, cut in everything if macs <= cost)  # fmt: skip
        assert predicted_loss(mask, curves, channel_map) - 2 == pytest.approx(best)


def test_least_sum_follows_the_convex_hull_across_a_bump() -> None:
    channel_map = chain((4, 4), (1, 1))
    bump, slope = [0.0, 0.3, 0.3, 0.3], [0.0, 0.2, 0.4, 0.6]
    curves = probe(Additive(channel_map, lambda g, k: (bump, slope)[g][k]), DENSE)
    policy = replace(BUDGET, curves="least-sum")
    order = removal_order_by_loss(policy, curves, CostModel(channel_map), channel_map)
    assert set(np.flatnonzero(order < 3)) == {
        0,
        1,
        2,
    }  # 0.1 per atom, although the first raises by 0.3
    by_threshold = removal_order_by_loss(BUDGET, curves, CostModel(channel_map), channel_map)
    assert by_threshold[4] == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_probes_that_are_not_finite_give_infinite_rises_and_are_counted(bad: float) -> None:
    channel_map = chain(SIZES)
    loss = Additive(channel_map, lambda g, k: bad if g == 0 and k >= 6 else FACTORS[g] * k)
    curves = probe(loss, DENSE)
    assert curves.failures == sum(1 for k in curves.probes(0) if k >= 6)
    highest = max(k for k in curves.probes(0) if k < 6)
    policy = replace(BUDGET, threshold=1e9)
    assert removed_counts_under_threshold(policy, curves, channel_map).tolist() == [
        highest,
        7,
        4,
        0,
    ]


def test_a_group_with_infinite_rises_is_cut_only_after_all_others() -> None:
    channel_map = chain(SIZES)
    loss = Additive(channel_map, lambda g, k: np.nan if g == 1 and k else FACTORS[g] * k)
    for how in (DENSE, CurveSettings(method="paper")):
        curves = probe(loss, how)
        policy = replace(BUDGET, threshold=1e9)
        assert removed_counts_under_threshold(policy, curves, channel_map)[1] == 0
        keep = decode_policy(
            BUDGET,
            Target(0.4),
            measurements_of(curves, BUDGET),
            PruningSpace(channel_map, CostModel(channel_map)),
        )
        assert keep[channel_map.group_of == 1].all()


def test_a_network_without_a_finite_loss_raises_an_error() -> None:
    channel_map = chain(SIZES)
    with pytest.raises(UserError, match="loss must be finite before curves"):
        probe(Additive(channel_map, lambda g, k: np.nan), DENSE)


def test_an_unreachable_target_raises_an_error(network) -> None:
    channel_map, cost_model, curves = network
    with pytest.raises(UnreachableBudgetError, match="cannot go below"):
        decode_policy(
            BUDGET,
            Target(0.01),
            measurements_of(curves, BUDGET),
            PruningSpace(channel_map, cost_model),
        )


def test_the_error_for_missing_curves_names_them(network) -> None:
    channel_map, cost_model, curves = network
    other = replace(BUDGET, probe="batch")
    with pytest.raises(UserError, match="'taylor, batch statistics'"):
        decode_policy(
            other,
            Target(0.5),
            measurements_of(curves, BUDGET),
            PruningSpace(channel_map, cost_model),
        )


def test_a_stages_factor_multiplies_the_rises_of_its_groups(network) -> None:
    channel_map, _, curves = network
    finer = replace(channel_map, layers=tuple(  # two resolutions: l0 and l1, l2 and l3
        replace(layer, macs_per_pair=cost, params_per_pair=1)
        for layer, cost in zip(channel_map.layers, (4, 4, 1, 1), strict=True)
    ))  # fmt: skip
    policy = replace(BUDGET, threshold=0.081, stages=(2.0, 0.0, 0.5, 0.0))
    assert removed_counts_under_threshold(policy, curves, finer).tolist() == [4, 1, 4, 0]


def test_the_atoms_of_a_group_are_removed_in_the_order_of_the_probes() -> None:
    channel_map = chain((6, 6))
    order = np.random.default_rng(1).permutation(12).astype(float)
    curves = probe(Additive(channel_map, lambda g, k: 0.0), DENSE, order)  # all cuts tie
    mask = mask_under_threshold(
        replace(BUDGET, threshold=0.0), curves, CostModel(channel_map), channel_map, floor=2
    )
    for group in range(2):
        own = np.flatnonzero(channel_map.group_of == group)
        best = own[np.argsort(order[own])[-2:]]
        assert set(np.flatnonzero(mask & (channel_map.group_of == group))) == set(best)


@pytest.mark.parametrize("threshold", [None, 0.019, 1])
def test_a_policy_with_or_without_a_threshold_survives_json(threshold: float | None) -> None:
    policy = replace(BUDGET, threshold=threshold, curves="least-sum", probe="batch")
    assert policy_from_json(json.loads(json.dumps(policy.to_json()))) == policy


@pytest.mark.parametrize(
    ("field", "value"),
    [("threshold", -0.1), ("threshold", float("nan")), ("curves", "sum"), ("probe", "train")],
)
def test_an_invalid_curve_field_of_a_policy_raises_an_error(field: str, value: object) -> None:
    with pytest.raises(UserError, match=field):
        replace(BUDGET, **{field: value})
