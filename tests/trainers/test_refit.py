"""Least-squares refit: the kept channels compensate for the removed ones."""

import copy
import json

import numpy as np
import pytest
import torch
import torchvision
from command_line import in_process
from model_folders import random_mask, trained_digits
from oracles import trace
from safetensors.torch import save_file
from tiny_networks import data_of
from torch import nn
from torch.nn import functional

import paretoprune as pp
from paretoprune.spaces.errors import UserError
from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.spaces.graph.working_copy import make_working_copy
from paretoprune.spaces.policy.policy import POLICY_PRESETS, Policy, policy_from_json
from paretoprune.spaces.records.recipe import read_recipe
from paretoprune.trainers.metrics.evaluate import evaluate
from paretoprune.trainers.pruning.bn_recalibration import recalibrate_batch_norm
from paretoprune.trainers.pruning.least_squares_refit import (
    fit_layer,
    refit_least_squares,
    sample_patches,
    sample_rows,
)
from paretoprune.trainers.pruning.surgery import prune_network
from paretoprune.trainers.runtime.device import DeviceConfig

SHAPE = (3, 8, 8)
EXACT = 1e-6  # a pull that hardly pulls


class Net(nn.Module):
    """Convolutions of several kinds, with and without a norm; linear layers, one runs twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.normed = nn.Conv2d(6, 8, (3, 2), stride=2, padding=(1, 2), bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 3, groups=8, padding=1)
        self.wide = nn.Conv2d(8, 6, 2, dilation=2)
        self.head = nn.Linear(6, 12)
        self.twice = nn.Linear(12, 12)
        self.out = nn.Linear(12, 3)

    def forward(self, x):
        x = self.stem(x).relu()
        x = self.norm(self.normed(x)).relu()
        x = self.wide(self.grouped(x)).relu().mean((2, 3))
        return self.out(self.twice(self.twice(self.head(x).relu()).relu()).relu())


def noise(count=256):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, *SHAPE, generator=generator)
    return data_of(images, torch.zeros(count, dtype=torch.long))


def refitted(model, channel_map, keep, data, **settings):
    small = prune_network(model, channel_map, keep)
    refit_least_squares(small, model, channel_map, keep, data, machine=DeviceConfig(), **settings)
    return small


def without(channel_map, layer, channels):
    """A mask that removes these output channels of a layer."""
    keep = np.ones(channel_map.atoms, dtype=bool)
    atoms = next(one.out_atoms for one in channel_map.layers if one.name == layer)
    keep[atoms[channels]] = False
    return keep


def test_removing_a_duplicate_channel_is_fully_compensated():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2, bias=False),
        nn.ReLU(), nn.Flatten(), nn.Linear(72, 10), nn.Tanh(), nn.Linear(10, 3),
    )  # fmt: skip
    traced, data = trace(model, SHAPE), noise()
    with torch.no_grad():
        for layer, one, twin in ((traced.model[0], 1, 4), (traced.model[5], 2, 7)):
            layer.weight[twin], layer.bias[twin] = layer.weight[one], layer.bias[one]
    keep = without(traced.channel_map, "0", [4]) & without(traced.channel_map, "5", [7])
    expected = traced.model(data.train.images)
    plain = prune_network(traced.model, traced.channel_map, keep)(data.train.images)
    small = refitted(traced.model, traced.channel_map, keep, data, ridge_strength=EXACT)
    scale = expected.std()
    assert (plain - expected).abs().max() > 0.1 * scale
    assert (small(data.train.images) - expected).abs().max() < 2e-3 * scale


def test_layers_before_the_cut_and_unsupported_layers_do_not_change():
    torch.manual_seed(0)
    traced, data = trace(Net(), SHAPE), noise()
    before = copy.deepcopy(traced.model.state_dict())
    keep = without(traced.channel_map, "normed", [1, 5])
    plain = prune_network(traced.model, traced.channel_map, keep)
    small = refitted(traced.model, traced.channel_map, keep, data)
    changed = {
        name.removesuffix(".weight")
        for name, weight in plain.named_parameters()
        if name.endswith(".weight") and not torch.equal(weight, small.get_parameter(name))
    }
    assert changed == {"wide", "head", "out"}  # not those before it, one by one, nor run twice
    assert all(torch.equal(v, before[k]) for k, v in traced.model.state_dict().items())
    for model in (small, traced.model):
        hooks = (m._forward_hooks or m._forward_pre_hooks for m in model.modules())
        assert not any(hooks)
        assert not any(m.training for m in model.modules())


def test_a_network_that_keeps_all_atoms_is_bit_equal():
    torch.manual_seed(0)
    traced, data = trace(Net(), SHAPE), noise()
    keep = np.ones(traced.channel_map.atoms, dtype=bool)
    small = refitted(traced.model, traced.channel_map, keep, data)
    same = zip(small.parameters(), traced.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in same)


def test_the_refit_is_deterministic():
    torch.manual_seed(0)
    traced, data = trace(Net(), SHAPE), noise()
    keep = without(traced.channel_map, "stem", [0, 3])
    first, second = (refitted(traced.model, traced.channel_map, keep, data) for _ in range(2))
    same = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in same)


@pytest.mark.parametrize("most", [10_000, 57])
@pytest.mark.parametrize("layer", ["stem", "normed", "wide"])
def test_patches_are_the_inputs_of_a_convolution_at_the_sampled_positions(layer, most):
    torch.manual_seed(0)
    module = Net().get_submodule(layer)
    x = torch.randn(5, module.in_channels, 9, 7)
    expected = sample_rows(module(x).permute(0, 2, 3, 1), most)
    seen = sample_patches(module, x, most)
    given = functional.linear(seen, module.weight.flatten(1), module.bias)
    assert seen.shape[0] == expected.shape[0] <= most
    assert torch.allclose(given, expected, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [7, 200])  # fewer and more than inputs
def test_a_fit_minimises_the_ridge_objective(rows, bias):
    torch.manual_seed(0)
    layer, x, y = nn.Linear(20, 4, bias=bias), 3 + torch.randn(rows, 20), torch.randn(rows, 4)
    centred, aim, before = x - x.mean(0), y - y.mean(0), layer.weight.detach().clone()
    r = 0.3 * centred.square().sum(0).mean()
    tall = torch.cat([centred, r.sqrt() * torch.eye(20)])
    goal = torch.cat([aim, r.sqrt() * before.T])
    with torch.no_grad():
        fit_layer(layer, x, y, 0.3)
    assert torch.allclose(layer.weight, torch.linalg.lstsq(tall, goal).solution.T, atol=1e-4)
    if bias:
        assert torch.allclose(layer(x).mean(0), y.mean(0), atol=1e-4)


def test_constant_inputs_do_not_change_a_layer():
    layer = nn.Linear(3, 2)
    before = layer.weight.detach().clone()
    with torch.no_grad():
        fit_layer(layer, torch.ones(5, 3), torch.randn(5, 2), 0.3)
    assert torch.equal(layer.weight, before)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    model, data = trained_digits()
    path = tmp_path_factory.mktemp("dense") / "dense.safetensors"
    save_file(model.state_dict(), path)
    return model, data, path


def test_a_refit_improves_a_cut_network_without_training(dense):
    model, data, _ = dense
    model, _ = make_working_copy(model)
    channel_map = trace_channel_map(model, data.input_shape)
    gains = []
    for seed in range(3):
        keep = random_mask(channel_map, 0.6, seed)
        plain, better = (
            prune_network(model, channel_map, keep),
            refitted(model, channel_map, keep, data),
        )
        for small in (plain, better):
            recalibrate_batch_norm(small, data, machine=DeviceConfig())
        before, after = (evaluate(one, data.validation, data).accuracy for one in (plain, better))
        gains.append(after - before)
    assert min(gains) > 0
    assert sum(gains) / 3 > 0.1


def test_prune_refits_if_the_policy_or_the_user_requests_it(dense, tmp_path, capsys):
    words = ("--target-flops", 0.3, "--weights", dense[2], "--epochs", 0.01)
    found = {}
    for name, more in (
        ("preset", ("taylor-by-price",)),
        ("off", ("taylor-by-price", "--no-refit")),
        ("on", ("pruning-at-a-glance", "--refit")),
        ("steps", ("taylor-by-price", "--steps", 2)),
    ):
        code, output = in_process(
            capsys, "prune", "--policy", *more, *words, "--out", tmp_path / name
        )
        assert code == 0, output.err
        found[name] = read_recipe(tmp_path / name / "recipe.json").policy.refit
        assert ("refitted" in output.out) == found[name]
    assert found == {"preset": True, "off": False, "on": True, "steps": True}
    data = dense[1]
    networks = [pp.load(tmp_path / name) for name in ("preset", "off")]
    worth, plain = (evaluate(one, data.validation, data).accuracy for one in networks)
    assert worth > plain + 0.05


def test_gates_are_not_refitted(capsys, tmp_path):
    with pytest.raises(UserError, match="refit must be false in a holistic schedule, got true; "):
        Policy("l2", schedule="holistic", gate_share=0.5, refit=True)
    words = ("--policy", "holistic", "--refit", "--target-flops", 0.4, "--out", tmp_path / "out")
    code, output = in_process(capsys, "prune", *words)
    assert code == 2
    assert "refit must be false" in output.err


def test_a_policy_of_an_earlier_version_has_no_refit():
    old = POLICY_PRESETS["taylor-by-price"].to_json()
    del old["refit"]
    assert not policy_from_json(json.loads(json.dumps(old))).refit
    with pytest.raises(UserError, match="'refit' must be of type bool, got 1"):
        policy_from_json({**old, "refit": 1})


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v2", "shufflenet_v2_x1_0", "googlenet", "swin_t"]
)
def test_the_refit_brings_every_kind_of_network_nearer_to_the_dense_outputs(name):
    torch.manual_seed(0)
    aux = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    model = torchvision.models.get_model(name, weights=None, num_classes=10, **aux)
    traced = trace(model, (3, 64, 64))
    keep = random_mask(traced.channel_map, 0.8)
    images = torch.randn(32, 3, 64, 64)
    data = data_of(images, torch.zeros(32, dtype=torch.long))
    recalibrate_batch_norm(traced.model, data, machine=DeviceConfig(), batches=1)
    away = []
    for small in (
        prune_network(traced.model, traced.channel_map, keep),
        refitted(traced.model, traced.channel_map, keep, data),
    ):
        recalibrate_batch_norm(small, data, machine=DeviceConfig(), batches=1)
        with torch.no_grad():
            away.append((small.eval()(images) - traced.model.eval()(images)).square().mean())
    assert away[1] < 0.1 * away[0]


class Odd(nn.Module):
    """Two layers that share weights, one that is given its input by name, and plain ones."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(12, 8), nn.Linear(8, 8)
        self.one, self.other = nn.Linear(8, 8), nn.Linear(8, 8)
        self.other.weight = self.one.weight
        self.named, self.plain = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.second(self.first(x.flatten(1)).relu()).relu()
        x = self.other(self.one(x).relu()).relu()
        return self.plain(self.named(input=x).relu())


def test_layers_with_shared_weights_or_keyword_inputs_are_not_refitted():
    torch.manual_seed(0)
    traced = trace(Odd(), (3, 2, 2))
    rng = torch.Generator().manual_seed(0)
    data = data_of(torch.randn(64, 3, 2, 2, generator=rng), torch.zeros(64, dtype=torch.long))
    keep = without(traced.channel_map, "first", [3])
    plain = prune_network(traced.model, traced.channel_map, keep)
    small = refitted(traced.model, traced.channel_map, keep, data)
    changed = {
        n for n, w in plain.named_parameters() if not torch.equal(w, small.get_parameter(n))
    }
    assert small.other.weight is small.one.weight
    assert {name for name in changed if name.endswith("weight")} == {
        "second.weight",
        "plain.weight",
    }


def test_a_fit_that_is_not_finite_does_not_change_a_layer():
    layer = nn.Linear(3, 2)
    before = layer.weight.detach().clone()
    with torch.no_grad():
        fit_layer(layer, torch.randn(5, 3), torch.full((5, 2), torch.nan), 0.3)
    assert torch.equal(layer.weight, before)
