"""Records: parsing of targets, Pareto fronts, and JSON round trips."""

import json
import math
from dataclasses import replace
from fractions import Fraction

import pytest
from evaluations import evaluation
from hypothesis import given
from hypothesis import strategies as st

from paretoprune.spaces.cost.target import Target, absolute_limit, parse_size
from paretoprune.spaces.errors import UserError
from paretoprune.spaces.policy.policy import (
    CONTROL_POLICIES,
    POLICY_PRESETS,
    Policy,
    policy_from_json,
)
from paretoprune.spaces.records.pareto_front import (
    DenseMetrics,
    Front,
    best_at_target,
    dominates,
    front_from_json,
    non_dominated,
)
from paretoprune.spaces.records.recipe import ModelSource, Recipe, recipe_from_json

evaluations = st.lists(
    st.builds(
        evaluation,
        accuracy=st.sampled_from([0.1, 0.5, 0.7, 0.9]),
        macs=st.integers(1, 6).map(lambda n: n * 100),
        params=st.integers(1, 6).map(lambda n: n * 10),
        trial=st.integers(0, 99),
    ),
    max_size=12,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.4", 0.4), ("40%", 0.4), (0.4, 0.4), ("1", 1.0), ("100%", 1.0), ("50M", 50_000_000),
     ("2.5k", 2500), ("4g", 4 * 10**9), (" 60 % ".replace(" %", "%"), 0.6), (1, 1.0)],
)  # fmt: skip
def test_a_size_is_read_as_fraction_percentage_or_absolute(text, value):
    assert parse_size("--target-flops", text) == value


@pytest.mark.parametrize(
    "text",
    ["0", "1.5", "40", "nan", "inf", "-0.1", "150%", "0%", "", "abc", "M", "0M", "infM", "nan%"],
)
def test_a_wrong_size_is_one_sentence_with_the_value_and_a_remedy(text):
    with pytest.raises(UserError) as error:
        parse_size("--target-flops", text)
    message = str(error.value)
    assert message.startswith("target_flops must be")
    assert text in message
    assert ";" in message
    assert "\n" not in message


def test_the_error_for_forty_has_the_documented_text():
    with pytest.raises(UserError) as error:
        parse_size("--target-flops", "40")
    assert str(error.value) == (
        "target_flops must be in (0, 1], got 40; for forty percent write 0.4"
    )


@given(st.text(max_size=12))
def test_any_text_is_a_size_or_a_user_error(text):
    try:
        value = parse_size("--target-flops", text)
    except UserError:
        return
    assert 0 < value <= 1 or (isinstance(value, int) and value >= 1)


@given(st.integers(1, 10**12), st.integers(1, 1000))
def test_a_limit_is_the_exact_floor_of_the_decimal_that_was_written(dense, mille):
    assert absolute_limit(mille / 1000, dense) == math.floor(Fraction(mille, 1000) * dense)


@given(evaluations)
def test_a_front_is_exactly_the_points_that_no_other_point_dominates(points):
    front = non_dominated(points)
    assert not any(dominates(q, p) for p in front for q in points)
    for point in points:
        assert any(q.objectives == point.objectives or dominates(q, point) for q in front)


@given(evaluations)
def test_the_best_at_the_target_is_the_most_accurate_within_the_tolerance(points):
    best = best_at_target(points, Target(0.4), (1000, 100))
    close = [p for p in points if p.macs <= 400 and p.flops_fraction > 0.38]
    assert (best is None) == (not close)
    if best:
        assert best.accuracy == max(p.accuracy for p in close)


def test_with_two_targets_both_limits_hold_and_one_is_met_closely():
    target = Target(0.4, 0.5)
    tight, loose = evaluation(macs=399, params=20), evaluation(0.99, macs=300, params=30)
    above = evaluation(0.99, macs=399, params=51)
    assert best_at_target([tight, loose, above], target, (1000, 100)) == tight


def test_a_front_survives_json_and_names_the_trial_that_dominates_at_target():
    better = evaluation(0.95, macs=300, params=30, trial=3)
    front = Front(
        seed=1, requested=Target(0.4), dense=DenseMetrics(0.97, 1000, 100), points=(better,),
        at_target=evaluation(trial=5), controls={"random": evaluation(0.5, trial=None)},
    )  # fmt: skip
    values = json.loads(json.dumps(front.to_json()))
    assert values["at_target"]["dominated_by"] == 3
    assert front_from_json(values) == front
    assert front_from_json({**values, "later": 1}) == front
    with pytest.raises(UserError, match="schema"):
        front_from_json({**values, "schema": 2})


@pytest.mark.parametrize("policy", [*POLICY_PRESETS.values(), *CONTROL_POLICIES.values()])
def test_a_policy_survives_json(policy):
    assert policy_from_json(json.loads(json.dumps(policy.to_json()))) == policy


@pytest.mark.parametrize(
    "change",
    [{"later": 1}, {"score": 3}, {"price_power": 2}, {"price_power": float("nan")}, {"floor": 0},
     {"normalisation": "sum"}, {"allocation": "best"}, {"learning_rate": 0}, {"floor": True}],
)  # fmt: skip
def test_an_invalid_policy_raises_an_error(change):
    with pytest.raises(UserError):
        policy_from_json({"score": "l2", **change})


RECIPE = Recipe(
    ModelSource("resnet20", 10, (3, 32, 32), ()), 8, (1, 5), "m", "w", Policy("l2"), Target(0.4), 7
)


def test_a_recipe_survives_json_and_gives_the_mask():
    recipe = recipe_from_json(json.loads(json.dumps(RECIPE.to_json())))
    assert recipe == RECIPE
    assert recipe.mask.tolist() == [True, False, True, True, True, False, True, True]


@pytest.mark.parametrize(
    "change",
    [{"schema": 3}, {"schema": True}, {"later": 1}, {"removed": [8]}, {"removed": [-1]},
     {"atoms": 10**12}, {"removed": "x"}, {"source": {"name": "x"}}, {"policy": {}},
     {"atoms": None}],
)  # fmt: skip
def test_an_invalid_recipe_raises_a_one_line_error(change):
    with pytest.raises(UserError) as error:
        recipe_from_json({**json.loads(json.dumps(RECIPE.to_json())), **change})
    assert "\n" not in str(error.value)


def test_of_equal_points_the_first_is_kept():
    assert non_dominated([evaluation(trial=4), evaluation(trial=2)])[0].trial == 4
    assert replace(evaluation(), trial=2).objectives == evaluation().objectives
