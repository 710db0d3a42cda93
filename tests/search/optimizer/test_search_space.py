"""The policy space: its policies, its restriction, and its suggesters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paretoprune.analysis.measure import MeasurementContext, measure_for_policies
from paretoprune.search.config.settings import SAMPLER_NAMES
from paretoprune.search.optimizer.samplers import SAMPLER_FACTORIES
from paretoprune.search.optimizer.search_space import (
    PolicySpace,
    build_policy_space,
    policy_space,
    unregister_space,
)
from paretoprune.search.optimizer.suggesters import (
    FixedSuggester,
    MutatingSuggester,
    OutsideSpaceError,
    RandomSuggester,
)
from paretoprune.spaces.allocations.decode import PruningSpace, decode_policies
from paretoprune.spaces.cost.cost import CostModel
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.errors import UserError
from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.spaces.graph.working_copy import make_working_copy
from paretoprune.spaces.policy.policy import (
    ALLOCATIONS,
    CONTROL_POLICIES,
    POLICY_PRESETS,
    PROBE_MODES,
    SCHEDULE_NAMES,
    Policy,
)
from paretoprune.trainers.data.sources.load import load_data
from paretoprune.trainers.models.build import build_model


@pytest.fixture(scope="module")
def tiny_measuring():
    data = load_data("digits")
    model, _ = make_working_copy(
        build_model("digits-resnet", classes=10, input_shape=data.input_shape, seed=0)
    )
    return MeasurementContext(model, trace_channel_map(model, data.input_shape), data, 0)


WHOLE = build_policy_space((), (), (), stages=3)


def drawn(space, seed, count=1):
    rng = np.random.default_rng(seed)
    return [space.sample(RandomSuggester(rng)) for _ in range(count)]


def test_every_sampler_that_may_be_named_can_be_made():
    assert tuple(SAMPLER_FACTORIES) == SAMPLER_NAMES


def test_every_preset_is_a_point_of_the_space():
    assert WHOLE.presets == POLICY_PRESETS


def test_presets_divide_by_both_costs_if_the_target_has_params():
    names = {name for name, policy in POLICY_PRESETS.items() if policy.price_power}
    assert names
    for params, flops, blend in ((0.4, None, 0.5), (0.4, 0.5, 0.5), (None, 0.5, 0.0)):
        space = build_policy_space((), (), (), stages=3, target=Target(flops, params))
        assert set(space.presets) == set(POLICY_PRESETS)
        for name, policy in space.presets.items():
            assert policy.price_blend == (blend if name in names else 0.0)
            assert replace(policy, price_blend=0.0) == POLICY_PRESETS[name]


def test_the_uniform_control_is_a_point_and_the_random_one_is_not():
    assert WHOLE.params_of(CONTROL_POLICIES["uniform"]) is not None
    assert WHOLE.params_of(CONTROL_POLICIES["random"]) is None


@given(st.integers(0, 10**6))
@settings(max_examples=200, deadline=None)
def test_the_parameters_of_a_policy_reproduce_it(seed):
    (policy,) = drawn(WHOLE, seed)
    params = WHOLE.params_of(policy)
    assert params is not None
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.enqueue_trial(params)
    assert WHOLE.sample(study.ask()) == policy


def test_every_part_of_the_space_is_drawn():
    policies = drawn(WHOLE, 0, 2000)
    assert {p.allocation for p in policies} == set(ALLOCATIONS)
    assert {p.schedule for p in policies} == set(SCHEDULE_NAMES)
    assert {p.score for p in policies} == set(WHOLE.scores)
    assert any(p.stages for p in policies)
    assert any(p.caution for p in policies)
    assert {p.price_power > 0 for p in policies} == {True, False}
    assert {p.has_loss_threshold for p in policies if p.curves == "threshold"} == {True, False}


def test_parameters_without_effect_are_not_suggested():
    for policy in drawn(WHOLE, 1, 500):
        params = WHOLE.params_of(policy)
        assert ("price_blend" in params) == (
            policy.price_power > 0 or policy.curves == "least-sum"
        )
        assert ("steps" in params) == (policy.schedule == "gradual")
        assert ("gate_share" in params) == (policy.schedule == "holistic")
        assert ("curves" in params) == (policy.allocation == "loss-budget")
        assert ("threshold" in params) == policy.has_loss_threshold


def test_users_narrow_the_space():
    narrow = build_policy_space(("taylor", "l2"), ("global-threshold",), ("one-shot",), stages=3)
    policies = drawn(narrow, 2, 300)
    assert {p.score for p in policies} == {"taylor", "l2"}
    assert {p.allocation for p in policies} == {"global-threshold"}
    assert {p.schedule for p in policies} == {"one-shot"}
    assert set(narrow.presets) == {"taylor-by-price"}


@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_allocations_hold_for_every_schedule(allocation):
    narrow = build_policy_space((), (allocation,), (), stages=1)
    every = [*drawn(narrow, 3, 300), *narrow.presets.values()]
    assert {p.allocation for p in every} == {allocation}
    schedules = SCHEDULE_NAMES if allocation == "global-threshold" else ("one-shot",)
    assert {p.schedule for p in every} == set(schedules)


@pytest.mark.parametrize(
    ("scores", "allocations", "schedules", "fault"),
    [
        (("tailor",), (), (), "score must be one of"),
        ((), ("global",), (), "allocations must be one of"),
        ((), (), ("twice",), "schedules must be one of"),
        ((), ("uniform",), ("gradual",), "needs global-threshold among allocations"),
    ],
)
def test_an_unknown_name_raises_an_error_of_one_line(scores, allocations, schedules, fault):
    with pytest.raises(UserError, match=fault) as error:
        build_policy_space(scores, allocations, schedules, stages=1)
    assert "\n" not in str(error.value)


def test_loss_curves_follow_the_scores_that_the_user_names_for_them():
    """Each order costs dozens of evaluations, so the default is two."""
    everything = build_policy_space((), (), (), stages=1)
    unasked = build_policy_space(("l2", "taylor"), (), (), stages=1)
    asked = build_policy_space(
        ("l2", "ensemble"), ("global-threshold", "loss-budget"), (), stages=1
    )
    assert everything.curve_orders == ("taylor", "weight-gradient-rank")
    assert unasked.curve_orders == ("taylor",)
    assert asked.curve_orders == ("l2", "ensemble")
    budgets = [p for p in drawn(asked, 6, 200) if p.allocation == "loss-budget"]
    assert {p.score for p in budgets} == {"l2", "ensemble"}


def test_the_measurements_of_a_space_serve_all_its_policies(tiny_measuring):
    names = ("taylor", "l2", "weight-gradient-rank")
    space = build_policy_space(names, ("global-threshold", "loss-budget"), (), stages=2)
    measurements = measure_for_policies(space.policies_to_measure, tiny_measuring)
    limits = PruningSpace(tiny_measuring.channel_map, CostModel(tiny_measuring.channel_map))
    policies = [p for p in drawn(space, 3, 200) if p.schedule != "holistic"]
    masks, reachable = decode_policies(
        policies, [Target(0.5)] * len(policies), measurements, limits
    )
    assert reachable.all()
    sizes = limits.cost_model.cost_of(masks)[:, 0] / limits.cost_model.dense[0]
    assert (sizes <= 0.5).all()
    capped = np.array([p.has_loss_threshold for p in policies])
    assert (sizes[~capped] > 0.4).all()
    assert (sizes[capped] < 0.4).any()


def test_a_users_function_replaces_the_space():
    @policy_space
    def mine(trial):
        return Policy("l2", floor=trial.suggest_int("least", 1, 4))

    try:
        space = build_policy_space((), (), (), stages=1)
        assert {p.floor for p in drawn(space, 4, 100)} == {1, 2, 3, 4}
        assert space.presets == {}
    finally:
        unregister_space(mine)


@pytest.fixture
def own_space():
    """A user's space with its own parameter names and steps."""

    @policy_space
    def mine(trial):
        return Policy(
            trial.suggest_categorical("which", ("l2", "taylor")),
            price_power=trial.suggest_float("power", 0.0, 1.0, step=0.25),
            learning_rate=trial.suggest_float("rate", 0.01, 0.04, log=True),
            floor=2 ** trial.suggest_int("least", 0, 2, log=False),
            steps=trial.suggest_int("steps", 1, 9, step=4),
        )

    yield build_policy_space((), (), (), stages=1)
    unregister_space(mine)


def test_suggesters_behave_like_an_optuna_trial(own_space):
    for policy in drawn(own_space, 5, 60):
        assert policy.price_power in (0, 0.25, 0.5, 0.75, 1)
        assert policy.steps in (1, 5, 9)
        assert own_space.params_of(policy) is None  # its names are not a policy's
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    assert own_space.sample(study.ask()).price_power in (0, 0.25, 0.5, 0.75, 1)
    fixed = FixedSuggester(Policy("l2", price_power=0.3, threshold=None))
    for ask in (
        lambda: fixed.suggest_float("price_power", 0.0, 1.0, step=0.25),
        lambda: fixed.suggest_float("threshold", 0.0, 1.0),
        lambda: fixed.suggest_int("score", 0, 3),
    ):
        with pytest.raises(OutsideSpaceError):
            ask()


def test_the_recorded_parameters_reproduce_the_policy(own_space):
    """Otherwise Optuna would learn from parameters that no trial used."""
    rng = np.random.default_rng(0)
    for asked in (
        RandomSuggester(rng),
        MutatingSuggester({"power": 0.5, "rate": 0.02, "steps": 5}, rng),
    ):
        policy = own_space.sample(asked)
        assert own_space.sample(MutatingSuggester(asked.params, Never())) == policy


class Never:
    """A random generator with which no parameter changes."""

    def random(self):
        return 1.0


def test_the_measurements_of_a_users_space_are_those_of_its_policies():
    @policy_space
    def mine(trial):
        return Policy(
            "l2", allocation="loss-budget", probe=trial.suggest_categorical("p", PROBE_MODES)
        )

    try:
        space = build_policy_space(("taylor",), (), ("one-shot",), stages=1)
        read = {
            (p.score, p.probe) for p in space.policies_to_measure if p.allocation == "loss-budget"
        }
        assert {("l2", probe) for probe in PROBE_MODES} <= read
    finally:
        unregister_space(mine)


@pytest.mark.parametrize(
    ("made", "fault"),
    [
        (lambda trial: {"score": "l2"}, "must return a paretoprune.Policy, got dict"),
        (lambda trial: 1 / 0, "got ZeroDivisionError: division by zero; correct it"),
    ],
)
def test_a_failing_users_space_raises_an_error_of_one_line(made, fault):
    policy_space(made)
    try:
        with pytest.raises(UserError, match=fault):
            drawn(build_policy_space((), (), (), stages=1), 0)
    finally:
        unregister_space(made)


def test_a_space_of_one_stage_suggests_no_stages():
    space = PolicySpace(("l2",), stages=1)
    assert not any(policy.stages for policy in drawn(space, 5, 200))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gate_variant": "soft"}, "gate_variant must be one of hard, sigmoid, hard-concrete"),
        ({"gate_weight": 0.0}, r"gate_weight must be in \(0, 1000\], got 0.0; 5 is usual"),
        ({"gate_approach": 1.5}, r"gate_approach must be in \[0, 1\], got 1.5"),
        ({"gate_learning_rate": float("nan")}, r"gate_learning_rate must be in \(0, 100\]"),
        ({"schedule": "holistic"}, "gate_share must be above 0 in a holistic schedule"),
        ({"floor": 0}, "floor must be at least 1, got 0"),
        ({"stages": (1.0,)}, "stages must be pairs of numbers"),
        ({"learning_rate": 10.0}, r"learning_rate must be in \(0, 10\), got 10.0; 0.02 is usual"),
    ],
)
def test_a_policy_refuses_invalid_values(values, message):
    with pytest.raises(UserError, match=message):
        Policy("l2", **values)
