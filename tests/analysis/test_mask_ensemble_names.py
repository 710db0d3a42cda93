"""A score's name says how its ensemble is measured: policies choose among them."""

from dataclasses import replace

import numpy as np
import pytest
from command_line import call
from hypothesis import given
from hypothesis import strategies as st

from paretoprune.analysis.mask_ensembles import PRESETS, name_of, settings_named
from paretoprune.analysis.mask_ensembles.names import NAMED
from paretoprune.analysis.mask_ensembles.settings import DRAWS, NORMS, PRIORS, TRANSFORMS, VARIANTS
from paretoprune.analysis.measure import Limits, Measuring, gather_evidence
from paretoprune.search.optimizer.search_space import space_from
from paretoprune.search.optimizer.suggesters import Drawn
from paretoprune.spaces.allocations.decode import Space, decode
from paretoprune.spaces.cost.cost import Price
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.errors import UserError
from paretoprune.spaces.graph.trace import trace_channels
from paretoprune.spaces.policy.policy import Policy
from paretoprune.trainers.data.sources.load import load_data
from paretoprune.trainers.models.build import build_model

LOWER = "ensemble-gradient:keep=0.7:variant=mean"
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "keep": st.floats(0.2, 0.99),
        "draw": st.sampled_from(DRAWS),
        "transform": st.sampled_from(TRANSFORMS),
        "variant": st.sampled_from(VARIANTS),
        "prior": st.sampled_from(PRIORS),
        "norms": st.sampled_from(NORMS),
    },
)


@given(st.sampled_from(sorted(PRESETS)), CHANGES, st.integers(16, 9999))
def test_settings_have_a_name_and_the_name_has_the_settings(base, changes, samples):
    settings = replace(PRESETS[base], **changes)
    assert settings_named(name_of(settings)) == settings
    assert name_of(replace(settings, samples=samples, images=99)) == name_of(settings)


def test_presets_go_by_their_names_and_a_change_is_read():
    assert all(name_of(settings) == name for name, settings in PRESETS.items())
    found = settings_named("ensemble-gradient:joined=true:keep=0.8:norms=running")
    assert (found.joined, found.keep, found.norms) == (True, 0.8, "running")
    assert (found.per, found.variant) == ("gradient", PRESETS["ensemble-gradient"].variant)
    assert set(NAMED) <= set(PRESETS["ensemble"].__slots__)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ensemble:kep=0.9", "must change each of keep, spread, .* got 'kep=0.9'"),
        ("ensemble:keep", "must change each of .* got 'keep'"),
        ("ensemble:keep=0.9:keep=0.8", "once at most, .* got 'keep=0.8'"),
        ("ensemble:samples=9", "must change each of .* got 'samples=9'"),
        ("ensemble:keep=most", "keep must be a number in score 'ensemble:keep=most', got 'most'"),
        ("ensemble-gradient:joined=1", "joined must be true or false in score"),
        ("ensemble:keep=2", r"ensemble keep must be in \[0.01, 0.999\], got 2.0"),
        ("ensemble:variant=cube", "ensemble variant must be one of mean, absolute, square"),
        ("ensembles", "score must be one of .*ensemble-batch.*, got 'ensembles'"),
    ],
)
def test_a_name_that_says_nothing_is_refused_in_one_sentence(name, message):
    with pytest.raises(UserError, match=message):
        space_from((name,), (), (), stages=1)


def test_one_search_may_hold_several_ensembles():
    space = space_from(("ensemble", LOWER), ("global-threshold",), ("one-shot",), stages=1)
    rng = np.random.default_rng(0)
    policies = [space.sample(Drawn(rng)) for _ in range(40)]
    assert {policy.score for policy in policies} == {"ensemble", LOWER}
    assert any(p.caution > 0 for p in policies if p.score == LOWER)
    assert [policy.score for policy in space.read] == ["ensemble", LOWER]


def test_ensembles_of_other_settings_are_other_evidence(tmp_path):
    data = load_data("digits")
    model = build_model("digits-resnet", classes=10, input_shape=data.input_shape, seed=0).eval()
    channel_map = trace_channels(model, data.input_shape)
    on = Measuring(model, channel_map, data, 0, tmp_path, Limits(samples=64))
    names = ("ensemble-gradient", LOWER)
    evidence = gather_evidence([Policy(name) for name in names], on)
    space = Space(channel_map, Price(channel_map))
    masks = [decode(Policy(name), Target(0.5), evidence, space) for name in names]
    assert not np.array_equal(*masks)
    assert len(list(tmp_path.glob("*.npz"))) >= 2


def test_a_wrong_name_on_the_command_line_is_one_line(tmp_path):
    words = ("--target-flops", "0.5", "--scores", "ensemble:keep=most", "--out", tmp_path / "run")
    done = call("search", *words)
    assert done.returncode == 2
    assert done.stderr.strip().endswith("got 'most'; give a number")
    assert "Traceback" not in done.stderr
