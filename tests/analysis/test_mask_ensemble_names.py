"""The name of an ensemble score states its settings, so that policies can choose them."""

from dataclasses import replace

import numpy as np
import pytest
from command_line import call_here
from hypothesis import given
from hypothesis import strategies as st

from paretoprune.analysis.mask_ensembles import (
    ENSEMBLE_PRESETS,
    name_from_settings,
    settings_from_name,
)
from paretoprune.analysis.mask_ensembles.names import NAME_FIELDS
from paretoprune.analysis.mask_ensembles.settings import (
    DRAW_METHODS,
    NORM_MODES,
    PRIORS,
    TRANSFORMS,
    VARIANTS,
)
from paretoprune.analysis.measure import (
    MeasurementContext,
    MeasurementLimits,
    measure_for_policies,
)
from paretoprune.search.optimizer.search_space import build_policy_space
from paretoprune.search.optimizer.suggesters import RandomSuggester
from paretoprune.spaces.allocations.decode import PruningSpace, decode_policy
from paretoprune.spaces.cost.cost import CostModel
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.errors import UserError
from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.spaces.policy.policy import Policy
from paretoprune.trainers.data.sources.load import load_data
from paretoprune.trainers.models.build import build_model

LOWER = "ensemble-gradient:keep=0.7:variant=mean"
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "keep": st.floats(0.2, 0.99),
        "draw": st.sampled_from(DRAW_METHODS),
        "transform": st.sampled_from(TRANSFORMS),
        "variant": st.sampled_from(VARIANTS),
        "prior": st.sampled_from(PRIORS),
        "norms": st.sampled_from(NORM_MODES),
    },
)


@given(st.sampled_from(sorted(ENSEMBLE_PRESETS)), CHANGES, st.integers(16, 9999))
def test_settings_and_names_convert_into_each_other(base, changes, samples):
    settings = replace(ENSEMBLE_PRESETS[base], **changes)
    assert settings_from_name(name_from_settings(settings)) == settings
    assert name_from_settings(replace(settings, samples=samples, images=99)) == name_from_settings(
        settings
    )


def test_presets_have_their_names_and_changes_are_parsed():
    assert all(name_from_settings(settings) == name for name, settings in ENSEMBLE_PRESETS.items())
    found = settings_from_name("ensemble-gradient:joined=true:keep=0.8:norms=running")
    assert (found.joined, found.keep, found.norms) == (True, 0.8, "running")
    assert (found.per, found.variant) == (
        "gradient",
        ENSEMBLE_PRESETS["ensemble-gradient"].variant,
    )
    assert set(NAME_FIELDS) <= set(ENSEMBLE_PRESETS["ensemble"].__slots__)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ensemble:kep=0.9", "must set each of keep, spread, .* got 'kep=0.9'"),
        ("ensemble:keep", "must set each of .* got 'keep'"),
        ("ensemble:keep=0.9:keep=0.8", "at most once, got 'keep=0.8'"),
        ("ensemble:samples=9", "must set each of .* got 'samples=9'"),
        ("ensemble:keep=most", "keep must be a number in score 'ensemble:keep=most', got 'most'"),
        ("ensemble-gradient:joined=1", "joined must be true or false in score"),
        ("ensemble:keep=2", r"ensemble keep must be in \[0.01, 0.999\], got 2.0"),
        ("ensemble:variant=cube", "ensemble variant must be one of mean, absolute, square"),
        ("ensembles", "score must be one of .*ensemble-batch.*, got 'ensembles'"),
    ],
)
def test_an_invalid_name_raises_a_user_error(name, message):
    with pytest.raises(UserError, match=message):
        build_policy_space((name,), (), (), stages=1)


def test_one_search_may_use_several_ensembles():
    space = build_policy_space(("ensemble", LOWER), ("global-threshold",), ("one-shot",), stages=1)
    rng = np.random.default_rng(0)
    policies = [space.sample(RandomSuggester(rng)) for _ in range(40)]
    assert {policy.score for policy in policies} == {"ensemble", LOWER}
    assert any(p.caution > 0 for p in policies if p.score == LOWER)
    assert [policy.score for policy in space.policies_to_measure] == ["ensemble", LOWER]


def test_ensembles_with_other_settings_give_other_masks(tmp_path):
    data = load_data("digits")
    model = build_model("digits-resnet", classes=10, input_shape=data.input_shape, seed=0).eval()
    channel_map = trace_channel_map(model, data.input_shape)
    on = MeasurementContext(model, channel_map, data, 0, tmp_path, MeasurementLimits(samples=64))
    names = ("ensemble-gradient", LOWER)
    measurements = measure_for_policies([Policy(name) for name in names], on)
    space = PruningSpace(channel_map, CostModel(channel_map))
    masks = [decode_policy(Policy(name), Target(0.5), measurements, space) for name in names]
    assert not np.array_equal(*masks)
    assert len(list(tmp_path.glob("*.npz"))) >= 2


def test_an_invalid_name_on_the_command_line_prints_one_line(tmp_path):
    words = ("--target-flops", "0.5", "--scores", "ensemble:keep=most", "--out", tmp_path / "run")
    done = call_here("search", *words)
    assert done.returncode == 2
    assert done.stderr.strip().endswith("got 'most'; give a number")
    assert "Traceback" not in done.stderr
