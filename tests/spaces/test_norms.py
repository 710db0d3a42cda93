"""Norms of any class are recognised by the operation that uses their own tensors."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import assert_oracles, trace
from tiny_networks import NormAct, data_of
from torch import Tensor, nn

from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.spaces.graph.verify import random_mask
from paretoprune.trainers.pruning.bn_recalibration import recalibrate_batch_norm
from paretoprune.trainers.pruning.partial_forward import PartialForward
from paretoprune.trainers.pruning.surgery import prune_network
from paretoprune.trainers.runtime.device import DeviceConfig

SHAPE = (3, 8, 8)


class OwnNorm(nn.Module):
    """A norm that is no subclass of a torch norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        found = (self.running_mean, self.running_var, self.weight, self.bias)
        return F.batch_norm(x, *found).tanh()


def network(norm: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), norm, nn.Conv2d(8, 6, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip


NORMS = {
    "activation": lambda: NormAct(8),
    "prelu": lambda: NormAct(8, act=nn.PReLU(8)),
    "no affine": lambda: NormAct(8, affine=False),
    "no statistics": lambda: NormAct(8, track_running_stats=False),
    "own class": lambda: OwnNorm(8),
    "plain": lambda: nn.BatchNorm2d(8),
}


@pytest.mark.parametrize("name", NORMS)
def test_labels_pass_a_norm_with_its_own_forward(name: str) -> None:
    traced = trace(network(NORMS[name]()), SHAPE)
    assert [group.name for group in traced.channel_map.groups] == ["0", "2"]
    kinds = {layer.name: layer.kind for layer in traced.channel_map.layers}
    assert kinds["1"] == "channelwise"
    assert_oracles(traced)


def test_surgery_cuts_all_tensors_of_a_norm_with_an_activation() -> None:
    traced = trace(network(NormAct(8)), SHAPE)
    keep = np.ones(traced.channel_map.atoms, dtype=bool)
    keep[[1, 4, 6]] = False
    norm = prune_network(traced.model, traced.channel_map, keep).get_submodule("1")
    names = ("weight", "bias", "running_mean", "running_var")
    assert [len(getattr(norm, name)) for name in names] == [5] * 4
    assert norm.num_features == 5


class Misused(NormAct):
    """A norm that uses its weight a second time."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.weight.abs().sum()


class Foreign(NormAct):
    """A norm that uses the statistics of another."""

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.running_mean * 1, self.running_var
        return F.batch_norm(x, mean, var, self.weight, self.bias)


@pytest.mark.parametrize(
    ("norm", "why"),
    [(Misused(8), "uses the weights of 1 itself"), (Foreign(8), "native_batch_norm in 1")],
)
def test_a_norm_that_does_something_else_protects_its_channels(norm: nn.Module, why: str) -> None:
    found = trace_channel_map(network(norm), SHAPE)
    assert [group.name for group in found.groups] == ["2"]
    assert any(why in kept.reason for kept in found.protected if kept.layer == "0")


def data():
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(64, *SHAPE, generator=rng)
    return data_of(images, torch.randint(0, 3, (64,), generator=rng))


def test_recalibration_measures_a_norm_with_an_activation_as_a_plain_one() -> None:
    """Dropout within the norm stays off, since the next norm would measure it."""
    plain = network(nn.Sequential(nn.BatchNorm2d(8), nn.ReLU()))
    fused = network(NormAct(8, act=nn.Sequential(nn.Dropout(0.9), nn.ReLU())))
    plain[3], fused[3] = nn.BatchNorm2d(6), nn.BatchNorm2d(6)
    for i in (0, 2, 6):
        fused[i].load_state_dict(plain[i].state_dict())
    for model in (plain, fused):
        recalibrate_batch_norm(model, data(), batches=2, batch_size=32, machine=DeviceConfig())
    torch.testing.assert_close(fused[1].running_var, plain[1][0].running_var)
    torch.testing.assert_close(fused[3].running_mean, plain[3].running_mean)


def test_a_partial_forward_keeps_the_activation_of_a_norm() -> None:
    traced = trace(network(NormAct(8)), SHAPE)
    images, leaves = traced.batch(), [layer.name for layer in traced.channel_map.layers]
    with torch.no_grad():
        replay = PartialForward(copy.deepcopy(traced.model), images, leaves)
        found = replay.finish(replay.advance(replay.start(images), replay.position_of(["2"])))
        torch.testing.assert_close(found, traced.model(images))


def test_cut_networks_equal_masked_ones_for_norms_called_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)
            self.norm, self.head = NormAct(8), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head((self.norm(self.a(x)) - self.norm(self.b(x))).mean((2, 3)))

    traced = trace(Twice(), SHAPE)
    assert traced.channel_map.atoms == 8
    assert random_mask(traced.channel_map, 0.5, np.random.default_rng(0)).sum() < 8
    assert_oracles(traced)
