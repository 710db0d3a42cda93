"""Scores are measured once, their keys cover all inputs, and policies decode them correctly."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from paretoprune.analysis.scores import Network, all_scores
from paretoprune.analysis.scores.calibration_pass import run_calibration_pass
from paretoprune.analysis.scores.measure import (
    calibration_split,
    load_or_measure_scores,
    measurement_key,
)
from paretoprune.spaces.allocations.decode import PruningSpace, decode_policy
from paretoprune.spaces.cost.cost import CostModel
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.errors import UserError
from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.spaces.graph.working_copy import make_working_copy
from paretoprune.spaces.policy.layer_scores import combine_layers
from paretoprune.spaces.policy.measurements import load_arrays, save_arrays, scores_to_arrays
from paretoprune.spaces.policy.normalization import divide_by_cost, normalize_within_groups
from paretoprune.spaces.policy.policy import (
    CONTROL_POLICIES,
    NORMALISATIONS,
    POLICY_PRESETS,
    Policy,
)
from paretoprune.trainers.data.sources.load import load_data
from paretoprune.trainers.data.splits import DataSplits, Split
from paretoprune.trainers.models.build import build_model
from paretoprune.trainers.pruning.masking import masked


@pytest.fixture(scope="module")
def scene():
    data = load_data("digits")
    model, _ = make_working_copy(
        build_model("digits-resnet", classes=10, input_shape=(1, 8, 8), seed=0)
    )
    channel_map = trace_channel_map(model, (1, 8, 8))
    return model, channel_map, data


@pytest.fixture(scope="module")
def measurements(scene):
    return load_or_measure_scores(*scene, folder=None, seed=0)


def test_scores_are_measured_once_and_then_read(scene, tmp_path, monkeypatch):
    first = load_or_measure_scores(*scene, folder=tmp_path, seed=0)
    monkeypatch.setattr(torch.autograd, "grad", None)  # a second measurement would need it
    again = load_or_measure_scores(*scene, folder=tmp_path, seed=0)
    assert again.key == first.key
    assert all(np.array_equal(again.scores[n].value, first.scores[n].value) for n in first.scores)


def test_another_weight_seed_or_image_gives_another_key(scene):
    model, channel_map, data = scene
    split = calibration_split(data)
    key = measurement_key(model, channel_map, data, split, 0)
    assert measurement_key(model, channel_map, data, split, 0) == key
    assert measurement_key(model, channel_map, data, split, 1) != key
    with torch.no_grad():
        weight = next(model.parameters())
        weight[0, 0, 0, 0] += 1e-3
        other_weight = measurement_key(model, channel_map, data, split, 0)
        weight[0, 0, 0, 0] -= 1e-3
    split.images[0, 0, 0, 0] += 1
    other_image = measurement_key(model, channel_map, data, split, 0)
    split.images[0, 0, 0, 0] -= 1
    assert len({key, other_weight, other_image}) == 3


def test_the_key_does_not_depend_on_earlier_measurements(tmp_path, monkeypatch):
    shape, rng = (3, 32, 32), torch.Generator().manual_seed(0)
    images = Split(torch.randn(16, *shape, generator=rng), torch.arange(16) % 10)
    data = DataSplits("noise", images, images, None, 10, (0.0,) * 3, (1.0,) * 3, shape)
    model, _ = make_working_copy(build_model("resnet20", classes=10, input_shape=shape, seed=0))
    on = (model, trace_channel_map(model, shape), data)
    first = load_or_measure_scores(*on, folder=tmp_path, seed=0, names=["taylor"], images=16)
    monkeypatch.setattr(torch.autograd, "grad", None)  # a second measurement would need it
    again = load_or_measure_scores(*on, folder=tmp_path, seed=0, names=["taylor"], images=16)
    assert again.key == first.key


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04torn", b"\x80\x04pickle"])
def test_a_damaged_file_is_a_miss(content, tmp_path, measurements):
    path = save_arrays(measurements.key, scores_to_arrays(measurements.scores), tmp_path)
    path.write_bytes(content)
    assert load_arrays(measurements.key, tmp_path) is None


def test_taylor_is_the_sum_of_each_samples_own_derivative(scene, measurements):
    model, channel_map, data = scene
    split = calibration_split(data)
    total = np.zeros(channel_map.atoms)
    for index in range(3):
        gate = torch.ones(channel_map.atoms, requires_grad=True)
        images = split.images[index : index + 1].float() / 255
        for channel, (mean, std) in enumerate(zip(data.mean, data.std, strict=True)):
            images[:, channel] = (images[:, channel] - mean) / std
        with masked(model.eval(), channel_map, gate):
            loss = functional.cross_entropy(model(images), split.labels[index : index + 1])
        total += torch.autograd.grad(loss, gate)[0].abs().double().numpy()
    small = type(split)(split.images[:3], split.labels[:3])
    network = Network(model, channel_map, data, small, np.random.default_rng(0))
    found = run_calibration_pass(network, {"taylor": all_scores()["taylor"]}).scores["taylor"]
    np.testing.assert_allclose(found.value, total, rtol=1e-4, atol=1e-7)


def test_mean_abs_weight_adds_up_over_the_layers_of_an_atom(scene, measurements):
    model, channel_map, _ = scene
    by_hand = np.zeros(channel_map.atoms)
    for layer in channel_map.layers:
        if layer.kind in ("conv", "linear"):
            weight = model.get_submodule(layer.name).weight.detach()
            for channel, atom in enumerate(layer.out_atoms):
                if atom >= 0:
                    by_hand[atom] += weight[channel].abs().mean().item()
    found = combine_layers(measurements.scores["mean-abs-weight"], channel_map, "sum")
    np.testing.assert_allclose(found, by_hand, rtol=1e-5)


@pytest.mark.parametrize("how", NORMALISATIONS)
def test_bias_removal_keeps_the_order_within_a_group(how, scene, measurements):
    channel_map = scene[1]
    before = combine_layers(measurements.scores["l2"], channel_map, "sum")
    after = normalize_within_groups(before, channel_map, how)
    for group in range(len(channel_map.groups)):
        atoms = channel_map.group_of == group
        assert np.array_equal(np.argsort(before[atoms]), np.argsort(after[atoms]))
    assert np.isfinite(
        normalize_within_groups(np.zeros(channel_map.atoms), channel_map, how)
    ).all()


def test_division_by_cost_prefers_to_remove_expensive_atoms():
    marginal = np.array([[10.0, 1.0], [1.0, 10.0]])
    by_macs = divide_by_cost(np.ones(2), marginal, power=1.0, blend=0.0)
    by_params = divide_by_cost(np.ones(2), marginal, power=1.0, blend=1.0)
    assert by_macs[0] < by_macs[1]
    assert by_params[0] > by_params[1]
    assert (divide_by_cost(np.ones(2), marginal, power=0.0, blend=0.0) == 1).all()


DECODABLE = [
    policy
    for policy in (*POLICY_PRESETS.values(), *CONTROL_POLICIES.values())
    if policy.score in all_scores() and policy.allocation != "loss-budget"
]


@pytest.mark.parametrize("policy", DECODABLE)
def test_every_policy_decodes_to_the_largest_mask_within_the_target(policy, scene, measurements):
    channel_map = scene[1]
    space = PruningSpace(channel_map, CostModel(channel_map))
    keep = decode_policy(policy, Target(0.4, 0.6), measurements, space)
    limits = Target(0.4, 0.6).limits(space.cost_model.dense)
    assert all(space.cost_model.cost_of(keep) <= limits)
    for atom in np.flatnonzero(~keep):
        more = keep.copy()
        more[atom] = True
        assert (space.cost_model.cost_of(more) > limits).any()


def test_the_uniform_control_takes_the_same_share_of_every_group(scene, measurements):
    channel_map = scene[1]
    space = PruningSpace(channel_map, CostModel(channel_map))
    keep = decode_policy(CONTROL_POLICIES["uniform"], Target(0.4), measurements, space)
    groups = [channel_map.group_of == g for g in range(len(channel_map.groups))]
    shares = [keep[members].mean() for members in groups]
    assert max(shares) - min(shares) <= 2 / min(members.sum() for members in groups)


def test_the_target_overrides_the_policys_floor_but_not_the_users(scene, measurements):
    channel_map, cost_model = scene[1], CostModel(scene[1])
    policy, free = Policy("l2", floor=2), PruningSpace(channel_map, cost_model)
    floored = PruningSpace(channel_map, cost_model, min_channels=2)
    target = Target(free.min_cost()[0] / cost_model.dense[0] * 1.02)
    limit = target.flops * cost_model.dense[0]
    keep = decode_policy(policy, target, measurements, free)
    assert cost_model.cost_of(keep)[0] <= limit
    assert floored.min_cost()[0] > limit
    with pytest.raises(UserError, match="cannot go below"):
        decode_policy(policy, target, measurements, floored)


def test_rounded_widths_and_the_budget_hold_together(scene, measurements):
    channel_map, cost_model = scene[1], CostModel(scene[1])
    space = PruningSpace(channel_map, cost_model, round_to=4)
    keep = decode_policy(Policy("taylor"), Target(0.4), measurements, space)
    assert cost_model.cost_of(keep)[0] <= 0.4 * cost_model.dense[0]
    for group in range(len(channel_map.groups)):
        members = channel_map.group_of == group
        kept = int(keep[members].sum())
        assert kept % 4 == 0 or kept == int(members.sum())


def test_an_unknown_score_raises_a_user_error(scene, measurements):
    space = PruningSpace(scene[1], CostModel(scene[1]))
    with pytest.raises(UserError, match="score must be one of"):
        decode_policy(Policy("no-such"), Target(0.4), measurements, space)


def test_calibration_sees_all_classes_if_train_is_sorted_by_class(scene):
    data = scene[2]
    order = data.train.labels.argsort(stable=True)
    by_class = replace(data, train=Split(data.train.images[order], data.train.labels[order]))
    found = calibration_split(by_class, 200)
    assert len(found) == 200
    assert found.labels.bincount(minlength=10).min() > 5
    again = calibration_split(by_class, 200)
    assert torch.equal(found.images, again.images)
